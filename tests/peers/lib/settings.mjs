// What main.mjs was called with.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({
    options: {
        cache: { type: 'string' },
        host: { type: 'string' },
        plugin: { type: 'string', multiple: true },
    },
    allowPositionals: true,
});

/** The folder with the packages from outside. */
export const cache = values.cache;
/** The host's binary. */
export const hostProgram = values.host;
/** The plugins that every host gets. */
export const plugins = values.plugin;
/** Only cases with this in their name are run. */
export const filter = positionals[0] ?? '';

// The packages lie in the cache, where no import from here would look.
const require = createRequire(join(cache, 'package.json'));

/** npm's `ws`. */
export const ws = require('ws');
/** Node-RED's start script. */
export const nodeRedProgram = join(cache, 'node_modules/node-red/red.js');
/** The Python that has `websockets`. */
export const pythonProgram = join(cache, 'python/bin/python');

/** The environment of child processes: without settings of the host, and without proxies between peers. */
export const environment = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(FLOWBAY_|RUST_|NODE_)|_proxy$/i.test(name)),
);
