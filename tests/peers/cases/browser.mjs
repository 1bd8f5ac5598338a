// Chromium's own WebSocket, on a page that the host serves and on one from elsewhere.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';

import { Browser, PAGE } from '../lib/browser.mjs';
import { test } from '../lib/cases.mjs';
import { event } from '../lib/events.mjs';
import { flow, listener, node, remove, set, watched } from '../lib/flows.mjs';
import { Host } from '../lib/host.mjs';
import { wsPeer } from '../lib/kinds.mjs';
import { assertEchoes, assertNothingIsLost } from '../lib/traffic.mjs';

/** A host that serves the page at `/page`, besides these parts of a flow. */
const host = (scope, ...parts) => Host.start(scope, flow(node('page', 'page', [], { path: '/page', html: PAGE }), ...parts));

/** The page of that host. */
const page = (browser, { address }) => browser.page(`http://${address}/page`);

const a = (what, run) => test(`Chromium: ${what}`, async (scope) => run(scope, await Browser.start(scope)));

a('text, binary, empty and large messages come back as they were sent', async (scope, browser) => {
    const server = await host(scope, listener('echo', '/ws'));
    const peer = await page(browser, server);
    await assertEchoes(await peer.connect(server.url('/ws')));
});

a('subprotocols are agreed on', async (scope, browser) => {
    const server = await host(scope, listener('any', '/any'), listener('some', '/some', { subprotocol: 'mqtt, wamp' }));
    const peer = await page(browser, server);
    for (const [path, chosen] of [['/any', 'wamp'], ['/some', 'mqtt']]) {
        const { protocol } = await peer.connect(server.url(path), { protocols: ['wamp', 'mqtt'] });
        assert.equal(protocol, chosen);
    }
});

a('close codes go both ways, and a page that is left says so', async (scope, browser) => {
    const rules = [set('action', 'close'), set('code', '4002', 'num'), set('reason', 'enough')];
    const server = await host(
        scope,
        listener('echo', '/ws'),
        listener('kick', '/kick', { rules, out: { control: true } }),
        watched('echo-in'),
    );
    const watch = await (await wsPeer(scope)).connect(server.url('/watch'));
    const peer = await page(browser, server);
    const connection = await peer.connect(server.url('/ws'));
    assert.deepEqual(await connection.close(4001, 'had enough'), { code: 4001, reason: 'had enough' });
    const status = await event(watch, 'disconnect');
    assert.deepEqual([status.code, status.reason], [4001, 'had enough']);
    const kicked = await peer.connect(server.url('/kick'));
    kicked.send('kick me');
    assert.deepEqual(await kicked.end(), { code: 4002, reason: 'enough' });
    await peer.connect(server.url('/ws'));
    await peer.leave();
    assert.equal((await event(watch, 'disconnect')).code, 1001);
});

a('two pages get what one of them sends', async (scope, browser) => {
    const server = await host(scope, listener('all', '/ws', { rules: [remove('_session')] }));
    const connections = [];
    for (let count = 0; count < 2; count += 1) {
        connections.push(await (await page(browser, server)).connect(server.url('/ws')));
    }
    connections[0].send('to all');
    for (const connection of connections) assert.equal(await connection.next(), 'to all');
});

a('a page from elsewhere is refused where the listener says who may come', async (scope, browser) => {
    const elsewhere = createServer((_, answer) => {
        answer.setHeader('content-type', 'text/html; charset=utf-8').end(PAGE);
    }).listen(0, '127.0.0.1');
    await once(elsewhere, 'listening');
    scope.defer(() => new Promise((resolve) => elsewhere.closeAllConnections() ?? elsewhere.close(resolve)));
    const origin = `http://127.0.0.1:${elsewhere.address().port}`;
    const server = await host(
        scope,
        listener('own', '/own', { origins: 'same' }),
        listener('listed', '/listed', { origins: origin }),
        listener('anyone', '/anyone'),
    );
    const own = await page(browser, server);
    const foreign = await browser.page(origin);
    await own.refused(server.url('/listed'));
    await foreign.refused(server.url('/own'));
    await server.process.stderr.wait('403');
    for (const [peer, path] of [[own, '/own'], [own, '/anyone'], [foreign, '/listed'], [foreign, '/anyone']]) {
        await assertEchoes(await peer.connect(server.url(path)), { path });
    }
});

a('a hot swap in the middle of its messages loses nothing', async (scope, browser) => {
    const server = await host(scope, listener('echo', '/ws'));
    const peer = await page(browser, server);
    const connections = [];
    for (let count = 0; count < 3; count += 1) connections.push(await peer.connect(server.url('/ws')));
    const count = await assertNothingIsLost(connections, async () => {
        for (let swap = 0; swap < 5; swap += 1) await server.swap();
    });
    assert.ok(count > 100, `${count} messages are too few to say anything`);
    await assertEchoes(connections[0]);
});
