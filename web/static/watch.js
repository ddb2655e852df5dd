// News from the stage: one long response with a snapshot a line (NDJSON), at least once a second.

import { Problem, problemOf } from './api.js';
import { Backoff, Nap } from './backoff.js';

/** Silence after which the connection counts as dead, ms. */
const SILENCE_MS = 2500;
/** Longest line believed in, characters; thirteen seats take a few thousand. */
export const LINE_MAX = 1 << 20;

/** Cuts text that arrives in arbitrary pieces into lines. */
export class LineSplitter {
    #rest = '';

    /**
     * @param {string} text
     * @returns {string[]} The lines it completes, without the empty ones.
     */
    push(text) {
        const lines = (this.#rest + text).split('\n');
        this.#rest = lines.pop() ?? '';
        if (this.#rest.length > LINE_MAX) {
            throw new Error('a line without an end');
        }
        return lines.map((line) => line.trim()).filter((line) => line !== '');
    }
}

/** Reads the news and comes back by itself. */
export class Watch {
    #address;
    #bearer;
    #handlers;
    #running = false;
    #nap = new Nap();
    /** @type {AbortController | null} */
    #attempt = null;

    /**
     * @param {object} given
     * @param {string} given.address
     * @param {string} given.bearer The invitation.
     * @param {{snapshot: (snapshot: any) => void, connection: (open: boolean, why: unknown) => void}} given.handlers
     */
    constructor({ address, bearer, handlers }) {
        this.#address = address;
        this.#bearer = bearer;
        this.#handlers = handlers;
    }

    start() {
        if (!this.#running) {
            this.#running = true;
            this.#run();
        }
    }

    stop() {
        this.#running = false;
        this.#attempt?.abort();
        this.#nap.wake();
    }

    /** There may be a network again. */
    hurry() {
        this.#nap.wake();
    }

    async #run() {
        const backoff = new Backoff();
        while (this.#running) {
            /** @type {unknown} */
            let why = null;
            try {
                await this.#read(() => backoff.reset());
            } catch (error) {
                why = error instanceof Problem ? error : new Problem({ type: 'network', detail: String(error) });
            }
            if (!this.#running) {
                return;
            }
            this.#handlers.connection(false, why);
            if (why instanceof Problem && [401, 403].includes(why.status) && why.retryAfter === null) {
                this.#running = false;
                return;
            }
            const asked = why instanceof Problem ? 1000 * (why.retryAfter ?? 0) : 0;
            await this.#nap.sleep(Math.max(asked, backoff.next()));
        }
    }

    /** @param {() => void} works */
    async #read(works) {
        const attempt = new AbortController();
        this.#attempt = attempt;
        let last = performance.now();
        const watch = setInterval(() => {
            if (performance.now() - last > SILENCE_MS) {
                attempt.abort();
            }
        }, 250);
        try {
            const headers = this.#bearer ? { authorization: `Bearer ${this.#bearer}` } : undefined;
            const response = await fetch(this.#address, { headers, signal: attempt.signal, cache: 'no-store' });
            if (!response.ok || !response.body) {
                throw await problemOf(response);
            }
            const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
            const splitter = new LineSplitter();
            for (;;) {
                const { done, value } = await reader.read();
                if (done) {
                    return;
                }
                last = performance.now();
                // A picture of the moment: of several, only the newest matters.
                const line = splitter.push(value).pop();
                if (line !== undefined) {
                    const snapshot = JSON.parse(line);
                    works();
                    this.#handlers.connection(true, null);
                    this.#handlers.snapshot(snapshot);
                }
            }
        } finally {
            clearInterval(watch);
            attempt.abort();
        }
    }
}
