// What is heard while waiting: the delayed feed, the same parts in segments of a quarter of a minute, from a cache.
//
// Reads the playlist (a few lines of HLS that our own edge writes; docs/delayed.md), fetches each segment once, and hands
// its parts on. About a minute behind; nobody's place depends on it, so a failure is only silence until the next look.

import { StreamSplitter } from './boxes.js';
import { Nap, jittered } from './backoff.js';
/** @typedef {import('./boxes.js').Part} Part */

/** What waits to be heard is worth little: the lower bitrate. */
const RENDITION = 'opus-24';
/** Between two looks at the playlist, ms: a cache keeps it for four seconds. */
const LOOK_MS = 5000;
/** Segments that a live playlist has; one that has ended has all there ever were. */
const SEGMENTS = 3;
/** One answer may take this long, ms. */
const PATIENCE_MS = 10000;
/** Largest playlist and segment that is taken, bytes: many times what they are. */
const [PLAYLIST_MAX, SEGMENT_MAX] = [65536, 1 << 20];

/** How the player spaces what comes in such lumps, seconds behind the newest: at the start, and at most. */
export const RESERVE = { lead: 24, most: 50 };

/**
 * @typedef {object} DelayedHandlers
 * @property {(bytes: Uint8Array) => void} init
 * @property {(part: Part) => void} part
 */

export class Delayed {
    #handlers;
    #fetch;
    #random;
    #nap = new Nap();
    #running = false;
    /** @type {AbortController | null} */
    #attempt = null;

    /**
     * @param {DelayedHandlers} handlers
     * @param {{fetch?: typeof globalThis.fetch, random?: () => number}} [outside]
     */
    constructor(handlers, outside = {}) {
        this.#handlers = handlers;
        this.#fetch = outside.fetch ?? globalThis.fetch.bind(globalThis);
        this.#random = outside.random ?? Math.random;
    }

    /** Whether it is being heard, or tried to. */
    get running() {
        return this.#running;
    }

    /**
     * Begins, unless it runs already.
     * @param {string} address Of the playlist of all renditions.
     */
    start(address) {
        if (!this.#running) {
            this.#running = true;
            this.#run(new URL(`delayed/${RENDITION}.m3u8`, address));
        }
    }

    stop() {
        this.#running = false;
        this.#attempt?.abort();
        this.#nap.wake();
    }

    /** @param {URL} address */
    async #run(address) {
        let init = '';
        let last = -1;
        while (this.#running) {
            try {
                const text = new TextDecoder().decode(await this.#get(address, PLAYLIST_MAX));
                const list = playlist(text, address);
                if (list.init && list.init !== init) {
                    this.#take(await this.#get(new URL(list.init), SEGMENT_MAX));
                    init = list.init;
                }
                for (const { number, address: segment } of list.segments.slice(-SEGMENTS)) {
                    if (number > last && this.#running) {
                        last = number;
                        this.#take(await this.#get(new URL(segment), SEGMENT_MAX));
                    }
                }
                if (list.ended) {
                    // The recording is there, and the page says so.
                    return;
                }
            } catch {
                // Nothing there yet, or no network: at the next look.
            }
            if (this.#running) {
                await this.#nap.sleep(jittered(LOOK_MS, this.#random));
            }
        }
    }

    /**
     * @param {URL} address
     * @param {number} most Bytes.
     */
    async #get(address, most) {
        const attempt = new AbortController();
        this.#attempt = attempt;
        const timer = setTimeout(() => attempt.abort(), PATIENCE_MS);
        try {
            const response = await this.#fetch(address, { signal: attempt.signal, credentials: 'omit' });
            const bytes = new Uint8Array(response.ok ? await response.arrayBuffer() : []);
            if (!response.ok || bytes.length > most) {
                throw new Error(`${response.status}, ${bytes.length} bytes`);
            }
            return bytes;
        } finally {
            clearTimeout(timer);
        }
    }

    /** @param {Uint8Array} bytes An `init`, or a segment. */
    #take(bytes) {
        for (const item of new StreamSplitter().push(bytes)) {
            if (!this.#running) {
                return;
            }
            if (item.kind === 'init') {
                this.#handlers.init(item.bytes);
            } else if (item.kind === 'part') {
                this.#handlers.part(item.part);
            }
        }
    }
}

/**
 * Reads a media playlist. Pure.
 * @param {string} text
 * @param {URL} base What its addresses are relative to.
 * @returns {{init: string | null, segments: {number: number, address: string}[], ended: boolean}} Segments that are
 *     there, by number.
 */
export function playlist(text, base) {
    /** @type {{number: number, address: string}[]} */
    const segments = [];
    /** @type {string | null} */
    let init = null;
    let [number, gap, ended] = [0, false, false];
    for (const line of text.split('\n').map((line) => line.trim())) {
        const sequence = /^#EXT-X-MEDIA-SEQUENCE:(\d+)$/.exec(line);
        const map = /^#EXT-X-MAP:.*URI="([^"]+)"/.exec(line);
        if (sequence) {
            number = Number(sequence[1]);
        } else if (map) {
            init = new URL(map[1], base).href;
        } else if (line === '#EXT-X-GAP') {
            gap = true;
        } else if (line === '#EXT-X-ENDLIST') {
            ended = true;
        } else if (line !== '' && !line.startsWith('#')) {
            if (!gap) {
                segments.push({ number, address: new URL(line, base).href });
            }
            number++;
            gap = false;
        }
    }
    return { init, segments, ended };
}
