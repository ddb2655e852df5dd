// When to try again: soon at first, then ever later, and never all at once.

/** Delays between attempts: 50–250 ms first, then a random point in the upper half of 200, 400, … `max` ms. */
export class Backoff {
    #attempt = 0;
    #max;
    #random;

    /** @param {{max?: number, random?: () => number}} options `max` in ms; `random` gives [0, 1). */
    constructor({ max = 2000, random = Math.random } = {}) {
        this.#max = max;
        this.#random = random;
    }

    /** The delay before the next attempt, ms. */
    next() {
        const attempt = this.#attempt++;
        if (attempt === 0) {
            return 50 + 200 * this.#random();
        }
        const ceiling = Math.min(this.#max, 100 * 2 ** Math.min(attempt, 30));
        return ceiling * (0.5 + 0.5 * this.#random());
    }

    /** Something worked: the next delay is a first one again. */
    reset() {
        this.#attempt = 0;
    }
}

/**
 * Spreads what many pages would otherwise do in the same instant.
 * @param {number} ms
 * @param {() => number} random
 * @returns {number} Between 0.75 and 1.25 of it.
 */
export function jittered(ms, random = Math.random) {
    return ms * (0.75 + 0.5 * random());
}

/** A pause that can be cut short. */
export class Nap {
    /** @type {(() => void) | null} */
    #wake = null;

    /**
     * @param {number} ms
     * @returns {Promise<boolean>} When it is over (false) or `wake` was called (true).
     */
    sleep(ms) {
        return new Promise((resolve) => {
            const timer = setTimeout(() => resolve(false), ms);
            this.#wake = () => {
                clearTimeout(timer);
                resolve(true);
            };
        });
    }

    wake() {
        this.#wake?.();
        this.#wake = null;
    }
}

/** Says when something that should flow has stopped. Fed with samples of a counter, as often as the page can. */
export class SilenceWatch {
    /** @type {number | null} */
    #count = null;
    #since = 0;
    #limit;

    /** @param {number} limit Silence allowed, ms. */
    constructor(limit) {
        this.#limit = limit;
    }

    /**
     * @param {number} count A counter that grows while things flow.
     * @param {number} now ms, monotonic.
     * @returns {boolean} Whether it has stood still for the limit.
     */
    sample(count, now) {
        if (this.#count !== count) {
            this.#count = count;
            this.#since = now;
            return false;
        }
        return now - this.#since >= this.#limit;
    }
}
