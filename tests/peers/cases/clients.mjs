// Clients from outside at a listener.

import assert from 'node:assert/strict';

import { test } from '../lib/cases.mjs';
import { event, message } from '../lib/events.mjs';
import { flow, listener, remove, set, watched } from '../lib/flows.mjs';
import { Host } from '../lib/host.mjs';
import { pythonPeer, wsPeer } from '../lib/kinds.mjs';
import { assertEchoes, assertNothingIsLost } from '../lib/traffic.mjs';

/** A host with one echoing listener at `/ws`. */
const echo = (scope, properties, options) => Host.start(scope, flow(listener('echo', '/ws', properties)), options);

for (const kind of [wsPeer, pythonPeer]) {
    const a = (what, run) => test(`${kind.label} as client: ${what}`, async (scope) => run(scope, await kind(scope)));

    a('text, binary, empty and large messages come back as they were sent', async (scope, peer) => {
        const host = await echo(scope);
        await assertEchoes(await peer.connect(host.url('/ws')));
    });

    a('a message in fragments is one message, and a ping is answered with its data', async (scope, peer) => {
        const host = await echo(scope);
        const connection = await peer.connect(host.url('/ws'));
        connection.sendFragments(['frag', 'men', 'ted']);
        assert.equal(await connection.next(), 'fragmented');
        connection.sendFragments([Buffer.from([1]), Buffer.from([]), Buffer.from([2, 3])]);
        assert.deepEqual(await connection.next(), Buffer.from([1, 2, 3]));
        assert.deepEqual(await connection.ping(Buffer.from('are you there?')), Buffer.from('are you there?'));
    });

    a('a listener with a heartbeat keeps a connection that answers its pings', async (scope, peer) => {
        const host = await echo(scope, { hb: '1' });
        const connection = await peer.connect(host.url('/ws'));
        if (kind === wsPeer) {
            for (let count = 0; count < 3; count += 1) await connection.pinged();
        } else {
            // This library answers pings without telling anybody.
            const other = await (await wsPeer(scope)).connect(host.url('/ws'));
            for (let count = 0; count < 3; count += 1) await other.pinged();
        }
        await assertEchoes(connection, { text: 'still here' });
    });

    a('the first subprotocol that is offered is agreed to, or the first of the listener that is', async (scope, peer) => {
        const parts = [listener('any', '/any'), listener('some', '/some', { subprotocol: 'mqtt, wamp' })];
        const host = await Host.start(scope, flow(...parts));
        for (const [path, protocols, chosen] of [
            ['/any', ['wamp', 'mqtt'], 'wamp'],
            ['/any', [], ''],
            ['/some', ['wamp', 'mqtt'], 'mqtt'],
            ['/some', ['stomp', 'wamp'], 'wamp'],
            ['/some', [], ''],
        ]) {
            const connection = await peer.connect(host.url(path), { protocols });
            assert.equal(connection.protocol, chosen, `${path} ${protocols}`);
        }
    });

    a('the path, its parameters and the query are in the session', async (scope, peer) => {
        const host = await Host.start(scope, flow(
            listener('who', '/ws/:room/who', { rules: [set('payload', '_session', 'msg')] }),
        ));
        const connection = await peer.connect(host.url('/ws/blue/who?a=1&b=2&b=3'));
        connection.send('who am I?');
        const session = await message(connection);
        assert.equal(session.type, 'websocket');
        assert.equal(session.path, '/ws/blue/who');
        assert.deepEqual(session.params, { room: 'blue' });
        assert.deepEqual(session.query, { a: '1', b: ['2', '3'] });
        assert.equal(session.remoteAddress, '127.0.0.1');
    });

    a('user and password, or a token, let those in who have them', async (scope, peer) => {
        const rules = [set('payload', '_session.identity', 'msg')];
        const parts = [
            listener('people', '/basic', { auth: 'basic', rules }),
            listener('robots', '/bearer', { auth: 'bearer', rules }),
        ];
        const credentials = { people: { users: 'ada:p@ss:word' }, robots: { tokens: 'robot:0123456789abcdef' } };
        const files = { 'flows_cred.json': JSON.stringify(credentials) };
        const host = await Host.start(scope, flow(...parts), { files });
        for (const [user, status] of [['', 401], ['ada:wrong', 401], ['eve:p%40ss%3Aword', 401]]) {
            const { refused, headers } = await peer.refused(host.url('/basic', { user }));
            assert.equal(refused, status);
            assert.match(headers['www-authenticate'], /^Basic /);
        }
        const headers = { Authorization: 'Bearer 0123456789abcdef' };
        for (const [url, options, identity] of [
            [host.url('/basic', { user: 'ada:p%40ss%3Aword' }), {}, 'ada'],
            [host.url('/bearer'), { headers }, 'robot'],
        ]) {
            const connection = await peer.connect(url, options);
            connection.send('who am I?');
            assert.equal(await connection.next(), identity);
        }
        assert.equal((await peer.refused(host.url('/bearer'))).refused, 401);
    });

    a('a close code goes into the flow, and one out of the flow to the client', async (scope, peer) => {
        const rules = [set('action', 'close'), set('code', '4002', 'num'), set('reason', 'enough')];
        const host = await Host.start(scope, flow(
            listener('echo', '/ws'),
            listener('kick', '/kick', { rules, out: { control: true } }),
            watched('echo-in'),
        ));
        const watch = await peer.connect(host.url('/watch'));
        const connection = await peer.connect(host.url('/ws'));
        const { _session: { id } } = await event(watch, 'connect');
        assert.deepEqual(await connection.close(4001, 'had enough'), { code: 4001, reason: 'had enough' });
        const status = await event(watch, 'disconnect');
        assert.deepEqual([status.code, status.reason], [4001, 'had enough']);
        assert.equal(status._session.id, id);
        const kicked = await peer.connect(host.url('/kick'));
        kicked.send('kick me');
        assert.deepEqual(await kicked.end(), { code: 4002, reason: 'enough' });
        // And one that is lost.
        const lost = await peer.connect(host.url('/ws'));
        await event(watch, 'connect');
        await lost.abort();
        assert.equal((await event(watch, 'disconnect')).code, 1006);
        // The host stops.
        await Promise.all([host.process.stop(), watch.end()]);
        assert.equal((await watch.closed).code, 1001);
    });

    a('a message beyond the limit ends the connection with 1009', async (scope, peer) => {
        const host = await echo(scope, { maxMessageSize: '1000' });
        const connection = await peer.connect(host.url('/ws'));
        await assertEchoes(connection, { 'as long as it may be': 'x'.repeat(1000) });
        connection.send('x'.repeat(1001));
        assert.equal((await connection.end()).code, 1009);
    });

    a('fifty clients get what one of them sends', async (scope, peer) => {
        const host = await Host.start(scope, flow(listener('all', '/ws', { rules: [remove('_session')] })));
        const open = Array.from({ length: 50 }, () => peer.connect(host.url('/ws')));
        const connections = await Promise.all(open);
        connections[7].send('to all');
        connections[7].send(Buffer.from('in binary'));
        for (const connection of connections) {
            assert.equal(await connection.next(), 'to all');
            assert.deepEqual(await connection.next(), Buffer.from('in binary'));
        }
    });

    a('a hot swap in the middle of its messages loses nothing', async (scope, peer) => {
        const host = await echo(scope);
        const open = Array.from({ length: 10 }, () => peer.connect(host.url('/ws')));
        const connections = await Promise.all(open);
        const count = await assertNothingIsLost(connections, async () => {
            for (let swap = 0; swap < 5; swap += 1) await host.swap();
        });
        assert.ok(count > 100 * connections.length / 10, `${count} messages are too few to say anything`);
        await assertEchoes(connections[0]);
    });
}
