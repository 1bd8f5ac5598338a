// Node-RED itself.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { Process } from './process.mjs';
import { cache, nodeRedProgram } from './settings.mjs';

/** Seconds that Node-RED may take to start; it loads some hundred modules. */
const START_SECONDS = 30;

/** A Node-RED that runs. */
export class NodeRed {
    /** Starts a Node-RED on `port` that runs `flow`, and waits until its flows have started. */
    static async start(scope, flow, { port, env = {} }) {
        const folder = await mkdtemp(join(cache, 'node-red-'));
        scope.defer(() => rm(folder, { recursive: true, force: true }));
        await writeFile(join(folder, 'flows.json'), JSON.stringify(flow, null, 4));
        const settings = { uiPort: port, uiHost: '127.0.0.1', flowFile: 'flows.json', disableEditor: true, credentialSecret: false };
        await writeFile(join(folder, 'settings.js'), `module.exports = ${JSON.stringify(settings)};\n`);
        const nodeRed = new NodeRed();
        nodeRed.address = `127.0.0.1:${port}`;
        const args = [nodeRedProgram, '--settings', join(folder, 'settings.js'), '--userDir', folder];
        nodeRed.process = new Process(scope, 'Node-RED', process.execPath, args, { cwd: folder, env });
        const { stdout } = nodeRed.process;
        for (const line of ['Started flows', 'Server now running']) {
            await nodeRed.process.alive(stdout.wait(line, { seconds: START_SECONDS }));
        }
        return nodeRed;
    }

    /** The `ws://` URL of a path. */
    url(path) {
        return `ws://${this.address}${path}`;
    }
}
