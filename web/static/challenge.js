// The challenge that control may answer a newcomer with: a little work, done on a thread of its own, or else a little
// patience. Whatever goes wrong with the work, waiting is always enough: nobody is kept out here.

/**
 * @typedef {object} Challenge As control answers it: ALTCHA's proof of work, version 1.
 * @property {string} algorithm
 * @property {string} salt
 * @property {string} challenge
 * @property {number} maxnumber
 * @property {string} signature
 * @property {number} waits_s After how many seconds it is taken unsolved.
 *
 * @typedef {(challenge: Challenge, signal: AbortSignal, told: (progress: number) => void) => Promise<number | null>} Solve
 *   Finds the number, or says that there is none; throws where it cannot be done.
 */

/** What a browser is asked to compute at the most; more than that, and it waits instead. */
const NUMBERS_MAX = 2 ** 21;
/** Longest wait that is believed, seconds. */
const WAITS_S_MAX = 120;
/** The wait is over for the server too, whose clock counts whole seconds. */
const MARGIN_S = 1;
/** Without a thread of its own: numbers in one go, a few milliseconds on an old phone. */
const SLICE = 512;

/** One challenge is answered: by work or by patience, whichever is sooner. */
export class Answering {
    #abort = new AbortController();

    /** How much was looked through, 0 to 1. */
    progress = 0;
    /** Whether work is of no use here, and it waits. */
    waits = false;

    /** Gives it up: `run` throws. */
    cancel() {
        this.#abort.abort();
    }

    /**
     * @param {Challenge} challenge
     * @param {{solve?: Solve, sleep?: (ms: number) => Promise<void>, changed?: () => void}} [outside]
     * @returns {Promise<string>} What to send back.
     * @throws {DOMException} `AbortError` if it was cancelled.
     */
    async run(challenge, { solve = solveApart, sleep = pause, changed = () => {} } = {}) {
        const { signal } = this.#abort;
        if (signal.aborted) {
            throw givenUp();
        }
        const seconds = Math.min(WAITS_S_MAX, Math.max(0, Number(challenge.waits_s) || 0)) + MARGIN_S;
        // Ends the work when the wait is over, or when it is given up.
        const done = new AbortController();
        signal.addEventListener('abort', () => done.abort(), { once: true });
        const work = this.#work(challenge, solve, done.signal, changed);
        try {
            const number = await Promise.race([work, sleep(1000 * seconds).then(() => null), aborted(signal)]);
            return encode(challenge, number);
        } finally {
            done.abort();
        }
    }

    /**
     * Never ends where there is no number to be had.
     * @param {Challenge} challenge
     * @param {Solve} solve
     * @param {AbortSignal} signal
     * @param {() => void} changed
     * @returns {Promise<number | null>}
     */
    async #work(challenge, solve, signal, changed) {
        const told = (/** @type {number} */ progress) => {
            this.progress = progress;
            changed();
        };
        /** @type {number | null} */
        let number = null;
        if (challenge.algorithm === 'SHA-256' && challenge.maxnumber <= NUMBERS_MAX) {
            number = await solve(challenge, signal, told).catch(() => null);
        }
        if (number !== null) {
            return number;
        }
        if (!signal.aborted) {
            this.waits = true;
            changed();
        }
        return new Promise(() => {});
    }
}

/**
 * What is sent back, as ALTCHA's clients write it.
 * @param {Challenge} challenge
 * @param {number | null} number
 */
export function encode({ algorithm, salt, challenge, signature }, number) {
    return btoa(JSON.stringify({ algorithm, challenge, ...(number === null ? {} : { number }), salt, signature }));
}

/** On a thread of its own, and where there is none for us, in slices between other work. @type {Solve} */
async function solveApart(challenge, signal, told) {
    try {
        return await solveInWorker(challenge, signal, told);
    } catch (error) {
        if (signal.aborted) {
            throw error;
        }
        return solveInSlices(challenge, signal, told);
    }
}

/** @type {Solve} */
function solveInWorker({ salt, challenge, maxnumber }, signal, told) {
    const worker = new Worker(new URL('./solver-worker.js', import.meta.url), { type: 'module' });
    return new Promise((resolve, reject) => {
        const end = (/** @type {() => void} */ then) => {
            worker.terminate();
            then();
        };
        signal.addEventListener('abort', () => end(() => reject(givenUp())), { once: true });
        worker.onerror = (event) => end(() => reject(new Error(event.message || 'no thread')));
        worker.onmessageerror = () => end(() => reject(new Error('no answer')));
        worker.onmessage = ({ data }) => {
            if ('number' in data) {
                end(() => resolve(data.number));
            } else {
                told(data.progress);
            }
        };
        worker.postMessage({ salt, challenge, maxnumber });
    });
}

/** @type {Solve} */
export async function solveInSlices(challenge, signal, told) {
    const { Search } = await import('./solver.js');
    const search = new Search(challenge);
    while (!search.over && !signal.aborted) {
        const number = search.run(SLICE);
        if (number !== null) {
            return number;
        }
        told(search.progress);
        await pause(0);
    }
    return null;
}

/** @param {number} ms @returns {Promise<void>} */
function pause(ms) {
    return new Promise((resolve) => setTimeout(resolve, ms));
}

/** @param {AbortSignal} signal @returns {Promise<never>} */
function aborted(signal) {
    return new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(givenUp()), { once: true });
    });
}

function givenUp() {
    return new DOMException('the challenge was given up', 'AbortError');
}
