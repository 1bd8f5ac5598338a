// Servers from outside, and the host's client.

import assert from 'node:assert/strict';

import { test } from '../lib/cases.mjs';
import { event } from '../lib/events.mjs';
import { client, flow, node, watched } from '../lib/flows.mjs';
import { Host } from '../lib/host.mjs';
import { pythonPeer, wsPeer } from '../lib/kinds.mjs';
import { assertEchoes, assertNothingIsLost } from '../lib/traffic.mjs';

/** Reconnects quickly, so that no case waits for it. */
const QUICK = { reconnect: 'fixed', reconnectDelay: '0.1' };

for (const kind of [wsPeer, pythonPeer]) {
    const a = (what, run) => test(`${kind.label} as server: ${what}`, async (scope) => run(scope, await kind(scope)));
    /** A host whose client is connected to the peer and sends back what it gets. */
    const echo = async (scope, peer, { path = '/', protocols = [], parts = [], user = '', ...properties } = {}) => {
        const port = await peer.listen({ protocols });
        const url = `ws://${user}127.0.0.1:${port}${path}`;
        const host = await Host.start(scope, flow(client('echo', url, { ...QUICK, ...properties }), ...parts));
        return { host, port, connection: await peer.accept() };
    };

    a('text, binary, empty and large messages come back as they were sent', async (scope, peer) => {
        const { connection } = await echo(scope, peer);
        await assertEchoes(connection);
    });

    a('a message in fragments is one message, and a ping is answered with its data', async (scope, peer) => {
        const { connection } = await echo(scope, peer);
        connection.sendFragments(['frag', 'men', 'ted']);
        assert.equal(await connection.next(), 'fragmented');
        assert.deepEqual(await connection.ping(Buffer.from('are you there?')), Buffer.from('are you there?'));
    });

    a('path, query, headers and subprotocols arrive as configured', async (scope, peer) => {
        const { connection } = await echo(scope, peer, {
            path: '/deep/er?a=1&b=%20',
            protocols: ['wamp'],
            subprotocol: 'mqtt, wamp',
            headers: [
                { keyType: 'Authorization', keyValue: '', valueType: 'other', valueValue: 'Bearer abc' },
                { keyType: 'other', keyValue: 'X-Own', valueType: 'other', valueValue: 'mine' },
            ],
        });
        assert.equal(connection.path, '/deep/er?a=1&b=%20');
        assert.equal(connection.headers.authorization, 'Bearer abc');
        assert.equal(connection.headers['x-own'], 'mine');
        assert.equal(connection.headers['sec-websocket-protocol'].replace(/\s/g, ''), 'mqtt,wamp');
        assert.equal(connection.protocol, 'wamp');
        await assertEchoes(connection, { text: 'agreed' });
    });

    a('user and password in the URL are Basic authentication', async (scope, peer) => {
        const { connection } = await echo(scope, peer, { user: 'ada:p%40ss@' });
        assert.equal(connection.headers.authorization, `Basic ${btoa('ada:p@ss')}`);
    });

    a('a heartbeat pings the server and keeps the connection', async (scope, peer) => {
        const { connection } = await echo(scope, peer, { hb: '1' });
        // The Python library answers pings without telling anybody, but would end the connection over a wrong one.
        if (kind === wsPeer) for (let count = 0; count < 2; count += 1) await connection.pinged();
        await assertEchoes(connection, { text: 'still here' });
    });

    a('a close code of the server goes into the flow, and the client comes back', async (scope, peer) => {
        const { host, connection } = await echo(scope, peer, { parts: [watched('echo-in')] });
        const watch = await (await wsPeer(scope)).connect(host.url('/watch'));
        assert.deepEqual(await connection.close(4001, 'enough'), { code: 4001, reason: 'enough' });
        const status = await event(watch, 'disconnect');
        assert.deepEqual([status.code, status.reason], [4001, 'enough']);
        await event(watch, 'connect');
        await assertEchoes(await peer.accept());
    });

    a('a connection that is cut is made anew', async (scope, peer) => {
        const { connection } = await echo(scope, peer);
        await connection.abort();
        const second = await peer.accept();
        await assertEchoes(second, { text: 'back again' });
    });

    a('a server that is started again gets its client back', async (scope, peer) => {
        const { port, connection } = await echo(scope, peer);
        await peer.stop();
        assert.deepEqual(await connection.end(), { code: 1012, reason: 'restart' });
        assert.equal(await peer.listen({ port }), port);
        await assertEchoes(await peer.accept());
    });

    a('a flow disconnects with a code and connects again', async (scope, peer) => {
        const press = (id, action) => node(id, 'inject', ['echo-control'], {
            props: Object.entries(action).map(([p, v]) => ({ p, v: String(v), vt: typeof v === 'number' ? 'num' : 'str' })),
            repeat: '', crontab: '', once: false,
        });
        const { host, connection } = await echo(scope, peer, {
            parts: [
                node('echo-control', 'websocket out', [], { client: 'echo', control: true }),
                press('off', { action: 'disconnect', code: 4003, reason: 'lunch' }),
                press('on', { action: 'connect' }),
            ],
        });
        await host.inject('off');
        assert.deepEqual(await connection.end(), { code: 4003, reason: 'lunch' });
        await host.inject('on');
        await assertEchoes(await peer.accept(), { text: 'back from lunch' });
    });

    a('the host stops with a close frame', async (scope, peer) => {
        const { host, connection } = await echo(scope, peer);
        await host.process.stop();
        // Node-RED's client closes without a code.
        assert.ok([1001, 1005].includes((await connection.end()).code));
    });

    a('a hot swap in the middle of its messages loses nothing', async (scope, peer) => {
        const { host, connection } = await echo(scope, peer);
        const count = await assertNothingIsLost([connection], async () => {
            for (let swap = 0; swap < 5; swap += 1) await host.swap();
        });
        assert.ok(count > 100, `${count} messages are too few to say anything`);
        await assertEchoes(connection);
    });
}
