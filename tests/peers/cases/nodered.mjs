// Node-RED and the host, the same flow file in both, each connected to the other.
//
//   test ──▶ /probe/payload ──▶ client ──▶ the other's /ws/payload, which echoes ──▶ client ──▶ /probe/payload ──▶ test
//
// and the same for whole messages. So each is the other's server and the other's client, in both modes.

import assert from 'node:assert/strict';

import { test } from '../lib/cases.mjs';
import { change, config, flow, listener, node, remove } from '../lib/flows.mjs';
import { Host } from '../lib/host.mjs';
import { wsPeer } from '../lib/kinds.mjs';
import { NodeRed } from '../lib/nodered.mjs';
import { freePort } from '../lib/process.mjs';
import { assertNothingIsLost } from '../lib/traffic.mjs';

const MODES = { payload: 'false', whole: 'true' };

/** The nodes of one mode. Where the client connects to comes from the environment: all that differs between the two. */
const mode = (name, wholemsg) => [
    listener(`echo-${name}`, `/ws/${name}`, { wholemsg }),
    config(`client-${name}`, 'websocket-client', {
        path: `\${${name}_url}`, tls: '', wholemsg, hb: '0', subprotocol: '', headers: [],
        // Which Node-RED does not know; it takes three seconds.
        reconnect: 'fixed', reconnectDelay: '1',
    }),
    config(`probe-${name}`, 'websocket-listener', { path: `/probe/${name}`, wholemsg }),
    node(`probe-in-${name}`, 'websocket in', [`out-${name}`], { server: `probe-${name}` }),
    // Node-RED drops a reply where it is no reply.
    change(`out-${name}`, [`client-out-${name}`], [remove('_session')]),
    node(`client-out-${name}`, 'websocket out', [], { client: `client-${name}` }),
    node(`client-in-${name}`, 'websocket in', [`back-${name}`], { client: `client-${name}` }),
    change(`back-${name}`, [`probe-out-${name}`], [remove('_session')]),
    node(`probe-out-${name}`, 'websocket out', [], { server: `probe-${name}` }),
].flat();

const FLOW = flow(...Object.entries(MODES).map(([name, wholemsg]) => mode(name, wholemsg)));

/** The variables of one side, whose other side has that port. */
const environment = (port) =>
    Object.fromEntries(Object.keys(MODES).map((name) => [`${name}_url`, `ws://127.0.0.1:${port}/ws/${name}`]));

/** Both sides, and a probe for each. */
async function pair(scope) {
    const ports = { host: await freePort(), nodeRed: await freePort() };
    const start = {
        host: () => Host.start(scope, FLOW, { port: ports.host, env: environment(ports.nodeRed) }),
        nodeRed: () => NodeRed.start(scope, FLOW, { port: ports.nodeRed, env: environment(ports.host) }),
    };
    const [host, nodeRed] = await Promise.all([start.host(), start.nodeRed()]);
    const peer = await wsPeer(scope);
    const probe = async (side, name) => {
        const connection = await peer.connect(side.url(`/probe/${name}`));
        await connected(connection);
        return connection;
    };
    return { host, nodeRed, probe, start };
}

/** Waits until the client behind a probe is connected: until something comes back. */
async function connected(probe) {
    let asked = 0;
    const ask = () => probe.send(JSON.stringify({ payload: ++asked }));
    ask();
    // Without an event to wait for: what is sent before a client is connected is lost, on purpose.
    const timer = setInterval(ask, 100);
    let answer;
    try {
        answer = await probe.next();
    } finally {
        clearInterval(timer);
    }
    while (JSON.parse(answer).payload !== asked) answer = await probe.next();
}

const a = (what, run) => test(`Node-RED: ${what}`, async (scope) => run(await pair(scope)));

a('in payload mode, each gets from the other what it would get from itself', async ({ host, nodeRed, probe }) => {
    const big = 'abcdefgh'.repeat(131_072);
    for (const side of [host, nodeRed]) {
        const connection = await probe(side, 'payload');
        for (const data of ['hello', '{"a": 1}', 'null', 'höher 🎈', Buffer.from([0, 255]), Buffer.alloc(0), big]) {
            connection.send(data);
            const back = await connection.next();
            assert.ok(typeof back === typeof data && Buffer.compare(Buffer.from(back), Buffer.from(data)) === 0);
        }
        // Nothing is sent for an empty text.
        connection.send('');
        connection.send('after it');
        assert.equal(await connection.next(), 'after it');
    }
});

a('in entire-message mode, each gets from the other what it would get from itself', async ({ host, nodeRed, probe }) => {
    for (const side of [host, nodeRed]) {
        const connection = await probe(side, 'whole');
        for (const [sent, expected] of [
            ['{"payload":"x","topic":"t","n":1.5}', { payload: 'x', topic: 't', n: 1.5 }],
            ['{"deep":{"a":[1,null,true,"ü"]}}', { deep: { a: [1, null, true, 'ü'] } }],
            ['{}', {}],
            ['42', { payload: 42 }],
            ['"text"', { payload: 'text' }],
            ['no JSON {', { payload: 'no JSON {' }],
            ['{"payload":{"type":"Buffer","data":[1,2]}}', { payload: { type: 'Buffer', data: [1, 2] } }],
            [Buffer.from('{"payload":"binary"}'), { payload: 'binary' }],
            [Buffer.from([255, 1]), { payload: { type: 'Buffer', data: [255, 1] } }],
        ]) {
            connection.send(sent);
            const { _msgid, ...back } = JSON.parse(await connection.next());
            assert.match(_msgid, /^[0-9a-f]{16}$/);
            assert.deepEqual(back, expected, `from ${sent}`);
        }
        connection.send('{"_msgid":"its own","_session":{"type":"websocket","id":"forged"}}');
        assert.deepEqual(JSON.parse(await connection.next()), { _msgid: 'its own' });
    }
});

a('each comes back when the other is started again', async ({ host, nodeRed, probe, start }) => {
    const probes = { host: await probe(host, 'payload'), nodeRed: await probe(nodeRed, 'payload') };
    await nodeRed.process.stop();
    await start.nodeRed();
    await connected(probes.host);
    await host.process.stop();
    const again = await start.host();
    await connected(await probe(again, 'payload'));
});

a('a hot swap in the middle of the messages between them loses nothing', async ({ host, nodeRed, probe }) => {
    const probes = [await probe(host, 'payload'), await probe(nodeRed, 'payload')];
    const count = await assertNothingIsLost(probes, async () => {
        for (let swap = 0; swap < 5; swap += 1) await host.swap();
    });
    assert.ok(count > 100, `${count} messages are too few to say anything`);
});
