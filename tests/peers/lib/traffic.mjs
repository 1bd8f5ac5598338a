// Messages that go back and forth, and each of which must come back as it was sent, in order.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';

/** One of each kind of message, with a name. */
export const KINDS = {
    'text': 'höher 🎈 {"a": 1}',
    'empty text': '',
    'binary': Buffer.from([0, 1, 127, 128, 255]),
    'empty binary': Buffer.alloc(0),
    'a MiB of text': 'abcdefgh'.repeat(131_072),
    'a MiB of binary': randomBytes(1_048_576),
};

/** Sends every kind of message and asserts that it comes back. */
export async function assertEchoes(connection, kinds = KINDS) {
    for (const [name, data] of Object.entries(kinds)) {
        connection.send(data);
        const back = await connection.next();
        // Without the data in the message of the failure, which may be a MiB.
        assert.equal(typeof back, typeof data, `${name}: the type of the message`);
        assert.ok(Buffer.compare(Buffer.from(back), Buffer.from(data)) === 0, `${name} comes back as it was sent`);
    }
}

/** How many messages of one connection are on their way at once. */
const IN_FLIGHT = 8;
/** How many messages come back on each connection after `during` is over. */
const AFTERWARDS = 20;

/**
 * Lets numbered messages, text and binary, go through all connections while `during` runs, and asserts that every one
 * comes back, in order, and nothing else. Returns how many there were.
 */
export async function assertNothingIsLost(connections, during) {
    let over = false;
    let total = 0;
    const message = (number) => (number % 2 ? `number ${number}` : Buffer.from(`number ${number}`));
    const pump = async (connection) => {
        let sent = 0;
        let received = 0;
        let end = Infinity;
        while (received < end) {
            while (sent < Math.min(end, received + IN_FLIGHT)) connection.send(message(sent++));
            assert.deepEqual(await connection.next(), message(received));
            received += 1;
            if (over) end = Math.min(end, sent + AFTERWARDS);
        }
        total += received;
    };
    const pumps = Promise.all(connections.map(pump));
    try {
        await during();
    } finally {
        over = true;
    }
    await pumps;
    return total;
}
