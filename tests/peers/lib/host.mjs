// The host: the real binary with the real plugins, in a folder of its own.

import { copyFile, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { Process } from './process.mjs';
import { cache, hostProgram, plugins } from './settings.mjs';

/** A host that runs. */
export class Host {
    #folder;
    #generation = 1;

    /**
     * Starts a host that runs `flow` and waits until its flows have started. `files` are further files in its folder,
     * by name.
     */
    static async start(scope, flow, { port = 0, args = [], env = {}, files = {} } = {}) {
        const host = new Host();
        host.#folder = await mkdtemp(join(cache, 'host-'));
        scope.defer(() => rm(host.#folder, { recursive: true, force: true }));
        await mkdir(join(host.#folder, 'plugins'));
        for (const file of plugins) await copyFile(file, join(host.#folder, 'plugins', basename(file)));
        for (const [name, text] of Object.entries({ 'flows.json': JSON.stringify(flow, null, 4), ...files })) {
            await writeFile(join(host.#folder, name), text);
        }
        // Swaps happen when a case says so.
        const all = ['run', 'flows.json', '-p', String(port), '--plugins', 'plugins', '--no-watch', ...args];
        env = { FLOWBAY_SHIPPED_PLUGINS: 'false', ...env };
        host.process = new Process(scope, 'the host', hostProgram, all, { cwd: host.#folder, env });
        const { stderr } = host.process;
        const [, address] = await host.process.alive(stderr.wait('listening on http://([0-9.:]+)'));
        await host.process.alive(stderr.wait('started flows'));
        host.address = address;
        return host;
    }

    /** The `ws://` URL of a path. */
    url(path, { user = '' } = {}) {
        return `ws://${user && `${user}@`}${this.address}${path}`;
    }

    /** Sends a POST request to the host's administration. */
    async post(path) {
        const reply = await fetch(`http://${this.address}${path}`, { method: 'POST' });
        if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`);
    }

    /** Presses the button of an inject node. */
    async inject(id) {
        await this.post(`/inject/${id}`);
    }

    /** Puts another build of the WebSocket plugin into place and waits until it has taken over. */
    async swap() {
        const file = join(this.#folder, 'plugins/libflowbay_websocket.so');
        const next = join(this.#folder, 'next');
        this.#generation += 1;
        // The same code, with something behind the end of what the file's headers speak of: another file, and so
        // another build to the host.
        await writeFile(next, Buffer.concat([await readFile(file), Buffer.from([this.#generation])]));
        await rename(next, file);
        await this.post('/plugins/reload');
        await this.process.alive(
            this.process.stderr.wait(`flowbay-websocket .*\\(generation ${this.#generation}\\)`),
        );
    }
}
