// The arithmetic of a challenge: which number, written behind a salt, has this SHA-256? Plain code rather than the
// browser's own digest, which takes a promise for each number and is missing on pages without HTTPS. The salt's whole
// blocks are computed once; a number then costs one block.

/** Numbers of one block: FIPS 180-4, section 4.2.2. */
const K = new Int32Array(64);
/** Where every hash begins: section 5.3.3. */
const START = new Int32Array(8);
constants();

/** Looks for one number, in steps as long as the caller likes. */
export class Search {
    #wanted;
    #maxnumber;
    #next = 0;
    /** After the salt's whole blocks. */
    #middle = Int32Array.from(START);
    #state = new Int32Array(8);
    #words = new Int32Array(64);
    /** Behind the whole blocks: the rest of the salt, the digits of the next number, and the padding; one block or two. */
    #tail = new Uint8Array(128);
    #blocks = 1;
    #salt;
    /** Where the digits begin and end. */
    #first;
    #end = 0;

    /**
     * @param {{salt: string, challenge: string, maxnumber: number}} challenge
     * @throws {RangeError} If it is none.
     */
    constructor({ salt, challenge, maxnumber }) {
        if (typeof salt !== 'string' || !/^[0-9a-f]{64}$/.test(challenge) || !(maxnumber >= 0 && maxnumber < 2 ** 32)) {
            throw new RangeError('this is no challenge');
        }
        this.#wanted = Int32Array.from(challenge.match(/.{8}/g) ?? [], (word) => parseInt(word, 16));
        this.#maxnumber = maxnumber;
        const bytes = new TextEncoder().encode(salt);
        this.#salt = bytes.length;
        const whole = bytes.length - (bytes.length % 64);
        for (let at = 0; at < whole; at += 64) {
            compress(bytes, at, this.#middle, this.#words);
        }
        this.#first = bytes.length - whole;
        this.#tail.set(bytes.subarray(whole));
        this.#write('0');
    }

    /** How much was looked through, 0 to 1. */
    get progress() {
        return this.#next / (this.#maxnumber + 1);
    }

    /** Whether there is nothing left to look through. */
    get over() {
        return this.#next > this.#maxnumber;
    }

    /**
     * Looks at the next numbers.
     * @param {number} count How many at the most.
     * @returns {number | null} The number that is looked for, if it is among them.
     */
    run(count) {
        const [state, wanted] = [this.#state, this.#wanted];
        for (const end = Math.min(this.#maxnumber + 1, this.#next + count); this.#next < end; this.#next++) {
            state.set(this.#middle);
            for (let block = 0; block < this.#blocks; block++) {
                compress(this.#tail, 64 * block, state, this.#words);
            }
            // The first word settles all but one in four thousand million.
            if (state[0] === wanted[0] && wanted.every((word, at) => word === state[at])) {
                return this.#next;
            }
            this.#count();
        }
        return null;
    }

    /** Adds one to the digits. */
    #count() {
        const tail = this.#tail;
        let at = this.#end - 1;
        while (at >= this.#first && tail[at] === 57) {
            tail[at--] = 48;
        }
        if (at >= this.#first) {
            tail[at]++;
        } else {
            this.#write(String(this.#next + 1));
        }
    }

    /** The digits, and the padding of section 5.1.1 behind them. @param {string} digits */
    #write(digits) {
        const tail = this.#tail;
        this.#end = this.#first + digits.length;
        this.#blocks = this.#end <= 55 ? 1 : 2;
        tail.fill(0, this.#first);
        for (let n = 0; n < digits.length; n++) {
            tail[this.#first + n] = digits.charCodeAt(n);
        }
        tail[this.#end] = 128;
        new DataView(tail.buffer).setUint32(64 * this.#blocks - 4, 8 * (this.#salt + digits.length));
    }
}

/**
 * Takes in one block: section 6.2.2.
 * @param {Uint8Array} bytes
 * @param {number} from
 * @param {Int32Array} state Before, and after.
 * @param {Int32Array} w Room for 64 words.
 */
function compress(bytes, from, state, w) {
    for (let t = 0, at = from; t < 16; t++, at += 4) {
        w[t] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
    }
    for (let t = 16; t < 64; t++) {
        const x = w[t - 15];
        const y = w[t - 2];
        const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
        const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
        w[t] = (w[t - 16] + s0 + w[t - 7] + s1) | 0;
    }
    let a = state[0];
    let b = state[1];
    let c = state[2];
    let d = state[3];
    let e = state[4];
    let f = state[5];
    let g = state[6];
    let h = state[7];
    for (let t = 0; t < 64; t++) {
        const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
        const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[t] + w[t]) | 0;
        const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
        const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        h = g;
        g = f;
        f = e;
        e = (d + t1) | 0;
        d = c;
        c = b;
        b = a;
        a = (t1 + t2) | 0;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

/** First 32 bits behind the point of the cube roots of the first 64 primes, and of the square roots of the first 8. */
function constants() {
    const behindPoint = (/** @type {number} */ root) => Math.floor((root % 1) * 2 ** 32) | 0;
    for (let n = 2, found = 0; found < 64; n++) {
        let factor = 2;
        while (n % factor !== 0) {
            factor++;
        }
        if (factor === n) {
            if (found < 8) {
                START[found] = behindPoint(Math.sqrt(n));
            }
            K[found++] = behindPoint(Math.cbrt(n));
        }
    }
}
