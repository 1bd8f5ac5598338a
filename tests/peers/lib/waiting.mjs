// Waiting for events, never for ever.

/** Seconds that an event may take to happen. Generous: used up only by a failure. */
export const PATIENCE = 15;

/** The value of `promise`, or an error when it has none in so many seconds. */
export function within(seconds, promise, what) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`not within ${seconds} s: ${what}`)), seconds * 1000);
    });
    // Whichever loses may fail later, which is nobody's concern then.
    promise.catch(() => {});
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Values that come in one by one, and readers that wait for them. */
export class Queue {
    #values = [];
    #readers = [];
    #failure;

    push(value) {
        const reader = this.#readers.shift();
        if (reader) reader.resolve(value);
        else this.#values.push(value);
    }

    /** Nothing more comes: readers get this error, once they have what came before it. */
    fail(error) {
        this.#failure ??= error;
        for (const reader of this.#readers.splice(0)) reader.reject(this.#failure);
    }

    /** The next value. */
    next(what = 'the next event', seconds = PATIENCE) {
        const value = new Promise((resolve, reject) => {
            if (this.#values.length > 0) resolve(this.#values.shift());
            else if (this.#failure) reject(this.#failure);
            else this.#readers.push({ resolve, reject });
        });
        return within(seconds, value, what);
    }
}

/** Text that comes in pieces, read line by line, and whoever waits for a line. */
export class Lines {
    text = '';
    #rest = '';
    #waiting = [];

    constructor(stream, onLine = () => {}) {
        stream.setEncoding('utf8');
        stream.on('data', (piece) => {
            this.text += piece;
            const lines = (this.#rest + piece).split('\n');
            this.#rest = lines.pop();
            lines.forEach(onLine);
            this.#waiting = this.#waiting.filter((wait) => !wait());
        });
    }

    /** Waits until the text so far matches `pattern` for the `count`th time, and returns that match. */
    wait(pattern, { seconds = PATIENCE, count = 1 } = {}) {
        const found = new Promise((resolve) => {
            const look = () => {
                const match = [...this.text.matchAll(new RegExp(pattern, 'g'))][count - 1];
                if (match) resolve(match);
                return match;
            };
            if (!look()) this.#waiting.push(look);
        });
        return within(seconds, found, `${pattern} (${count}) in the output`);
    }
}
