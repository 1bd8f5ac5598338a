// Child processes that end with the case that started them.

import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { environment } from './settings.mjs';
import { Lines, within } from './waiting.mjs';

/** Seconds that a process may take to end when it is asked to. */
const END_SECONDS = 8;

/** A child process with the lines that it writes. */
export class Process {
    /** Starts it. `noise` is what need not be shown of its output when the case fails. */
    constructor(scope, name, program, args, { cwd, env = {}, onLine, noise } = {}) {
        this.child = spawn(program, args, { cwd, env: { ...environment, ...env } });
        this.stdout = new Lines(this.child.stdout, onLine);
        this.stderr = new Lines(this.child.stderr);
        this.exited = new Promise((resolve, reject) => {
            this.child.once('error', reject);
            this.child.once('exit', (code, signal) => resolve(code ?? signal));
        });
        this.exited.catch(() => {});
        // It may be gone when something is written to it.
        this.child.stdin.on('error', () => {});
        scope.defer(() => this.stop());
        scope.onFailure(() => {
            const lines = `${this.stderr.text}\n${this.stdout.text}`.split('\n');
            const telling = lines.filter((line) => line !== '' && !noise?.test(line));
            return [`---- ${name} ----`, ...telling.slice(-60).map((line) => line.slice(0, 500))].join('\n');
        });
    }

    /** The value of `promise`, unless the process ends before. */
    alive(promise) {
        const gone = this.exited.then((code) => {
            throw new Error(`the process has ended (${code})`);
        });
        gone.catch(() => {});
        return Promise.race([promise, gone]);
    }

    /** Asks the process to end, and ends it if it does not. Returns its exit code. */
    async stop(signal = 'SIGTERM') {
        this.child.kill(signal);
        try {
            return await within(END_SECONDS, this.exited, 'the end of the process');
        } catch {
            this.child.kill('SIGKILL');
            return await this.exited;
        }
    }
}

/** A port of the loopback interface that nobody uses at the moment. */
export async function freePort() {
    const { createServer } = await import('node:net');
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address();
    server.close();
    await once(server, 'close');
    return port;
}
