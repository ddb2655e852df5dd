// The last minute of parts, by number.

/** @typedef {import('./boxes.js').Part} Part */

/** Parts kept: 60 s. */
export const RING_PARTS = 125;

/** Bounded store of parts: the newest stay. Parts may come in any order. */
export class Ring {
    /** @type {Map<number, Part>} */
    #parts = new Map();
    /** @type {Part | null} */
    #newest = null;
    #capacity;

    /** @param {number} capacity Numbers it spans, counted back from the newest. */
    constructor(capacity = RING_PARTS) {
        this.#capacity = capacity;
    }

    /** The part with the highest number. */
    get newest() {
        return this.#newest;
    }

    get size() {
        return this.#parts.size;
    }

    /**
     * @param {Part} part
     * @returns {boolean} Whether it is new here: false for a duplicate and for what is too old to keep.
     */
    put(part) {
        if (this.#parts.has(part.number) || part.number <= this.#floor()) {
            return false;
        }
        this.#parts.set(part.number, part);
        if (!this.#newest || part.number > this.#newest.number) {
            this.#newest = part;
            const floor = this.#floor();
            for (const number of this.#parts.keys()) {
                if (number <= floor) {
                    this.#parts.delete(number);
                }
            }
        }
        return true;
    }

    /** @param {number} number */
    has(number) {
        return this.#parts.has(number);
    }

    /**
     * @param {number} time Media time, seconds.
     * @returns {Part[]} The parts that end after it, in order.
     */
    after(time) {
        return [...this.#parts.values()].filter((part) => part.end > time).sort((a, b) => a.number - b.number);
    }

    clear() {
        this.#parts.clear();
        this.#newest = null;
    }

    #floor() {
        return this.#newest ? this.#newest.number - this.#capacity : -Infinity;
    }
}
