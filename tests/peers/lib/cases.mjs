// Cases: named functions that fail by throwing. Each gets a scope, which ends what the case started.

import { filter } from './settings.mjs';
import { within } from './waiting.mjs';

/** Seconds that a case may take. Generous: used up only by a failure. */
const CASE_SECONDS = 40;
/** Seconds that ending one thing of a case may take. */
const END_SECONDS = 10;

const cases = [];

/** Adds a case. */
export function test(name, run) {
    if (name.includes(filter)) cases.push({ name, run });
}

/** What a case has started; ended in reverse order when the case is over. */
export class Scope {
    #ends = [];
    #notes = [];

    /** Calls `end` when the case is over. */
    defer(end) {
        this.#ends.push(end);
    }

    /** Shows what `note` returns when the case has failed. */
    onFailure(note) {
        this.#notes.push(note);
    }

    notes() {
        return this.#notes.map((note) => note()).join('\n');
    }

    async end() {
        for (const end of this.#ends.splice(0).reverse()) {
            await within(END_SECONDS, Promise.resolve(end()), 'the end of what the case has started');
        }
    }
}

/** Runs all cases, one after the other, and returns how many passed and failed. */
export async function runAll() {
    const result = { passed: 0, failed: 0 };
    for (const { name, run } of cases) {
        const scope = new Scope();
        const begin = Date.now();
        let failure;
        try {
            await within(CASE_SECONDS, run(scope), 'the end of the case');
        } catch (error) {
            failure = `${error.stack ?? error}\n${scope.notes()}`;
        }
        try {
            await scope.end();
        } catch (error) {
            failure ??= `${error.stack ?? error}`;
        }
        if (failure === undefined) {
            result.passed += 1;
            console.log(`ok      ${name} (${Date.now() - begin} ms)`);
        } else {
            result.failed += 1;
            console.log(`FAILED  ${name}\n${failure.replace(/^/gm, '        ')}`);
        }
    }
    return result;
}
