// Chromium without a window, driven by its DevTools protocol, and its own WebSocket as a peer.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { Peer, packed, unpacked } from './connection.mjs';
import { Process } from './process.mjs';
import { cache, ws } from './settings.mjs';
import { within, PATIENCE } from './waiting.mjs';

/** Seconds that the browser may take to start: more than anything else here, on a machine without a graphics card. */
const START_SECONDS = 30;

/** The page whose script obeys the commands of a peer. */
export const PAGE = await readFile(new URL('../page/peer.html', import.meta.url), 'utf8');

/** A browser that runs. */
export class Browser {
    #socket;
    #calls = new Map();
    #listeners = new Map();
    #count = 0;

    static async start(scope) {
        const profile = await mkdtemp(join(cache, 'chromium-'));
        scope.defer(() => rm(profile, { recursive: true, force: true, maxRetries: 5 }));
        const browser = new Browser();
        const args = ['--headless=new', '--disable-gpu', '--no-first-run', '--disable-background-networking',
            // A page that is left is gone, instead of waiting for somebody to go back.
            '--disable-features=BackForwardCache', '--disable-dev-shm-usage', '--remote-debugging-port=0', `--user-data-dir=${profile}`];
        // Root has no sandbox to drop its rights into; the only pages here are the tests' own.
        if (process.getuid() === 0) args.push('--no-sandbox');
        const env = { HOME: profile, XDG_CONFIG_HOME: profile, XDG_CACHE_HOME: profile };
        // It complains about a desktop that is not there.
        const noise = /dbus/i;
        browser.process = new Process(scope, 'Chromium', 'chromium', [...args, 'about:blank'], { env, noise });
        const listening = browser.process.stderr.wait('DevTools listening on (ws://\\S+)', { seconds: START_SECONDS });
        const [, url] = await browser.process.alive(listening);
        browser.#socket = new ws.WebSocket(url, { perMessageDeflate: false });
        await new Promise((resolve, reject) => browser.#socket.once('open', resolve).once('error', reject));
        browser.#socket.on('message', (text) => browser.#receive(JSON.parse(text)));
        scope.defer(() => browser.#socket.terminate());
        return browser;
    }

    #receive({ id, result, error, method, params, sessionId }) {
        if (id === undefined) {
            this.#listeners.get(`${sessionId} ${method}`)?.(params);
            return;
        }
        const { resolve, reject } = this.#calls.get(id);
        this.#calls.delete(id);
        if (error) reject(new Error(error.message));
        else resolve(result);
    }

    /** Calls a method of the protocol, of one page's when there is a session. */
    call(method, params = {}, sessionId = undefined) {
        const id = ++this.#count;
        const answer = new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }));
        this.#socket.send(JSON.stringify({ id, method, params, sessionId }));
        return within(PATIENCE, answer, `Chromium's answer to ${method}`);
    }

    /** Calls `listener` with each of these events of a page. */
    on(sessionId, method, listener) {
        this.#listeners.set(`${sessionId} ${method}`, listener);
    }

    /** Opens `url`, which serves `PAGE`, and returns the peer that its script is. */
    async page(url) {
        const { targetId } = await this.call('Target.createTarget', { url: 'about:blank' });
        const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true });
        const call = (method, params) => this.call(method, params, sessionId);
        const evaluate = async (expression) => {
            const { exceptionDetails: thrown } = await call('Runtime.evaluate', { expression });
            if (thrown) throw new Error(thrown.exception?.description ?? thrown.text);
        };
        const peer = new Peer(({ data, parts, ...command }) => {
            if (data !== undefined) command.data = packed(data);
            // A case fails by what does not come then.
            evaluate(`obey(${JSON.stringify(command)})`).catch((error) => console.error(String(error)));
        });
        this.on(sessionId, 'Runtime.bindingCalled', ({ payload }) => {
            const { data, ...event } = JSON.parse(payload);
            peer.event(data ? { ...event, data: unpacked(data) } : event);
        });
        await call('Runtime.enable');
        await call('Runtime.addBinding', { name: 'tell' });
        await call('Page.enable');
        const loaded = new Promise((resolve) => this.on(sessionId, 'Page.loadEventFired', resolve));
        const { errorText } = await call('Page.navigate', { url });
        if (errorText) throw new Error(`${url}: ${errorText}`);
        await within(PATIENCE, loaded, `the page ${url}`);
        /** Leaves the page for an empty one. */
        peer.leave = () => call('Page.navigate', { url: 'about:blank' });
        return peer;
    }
}
