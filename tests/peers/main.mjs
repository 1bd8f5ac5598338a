// Runs all cases; see the file `run`.

import './cases/clients.mjs';
import './cases/servers.mjs';
import './cases/browser.mjs';
import './cases/nodered.mjs';
import { runAll } from './lib/cases.mjs';

const { passed, failed } = await runAll();
console.log(`${passed} passed, ${failed} failed`);
// Whatever a case that failed has left open does not matter any more.
process.exit(failed > 0 || passed === 0 ? 1 : 0);
