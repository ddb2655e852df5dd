// A place in the waiting room: kept in this browser, looked after here. Control keeps no list of who waits; it says one
// thing a second to all (`queue.json`), and each page computes its own place and turn from it (crate `admission`, module
// `room`, describes the arithmetic; everything is an integer below 2^53).

import { request } from './api.js';

/**
 * @typedef {object} Kept
 * @property {string} token What to show.
 * @property {boolean} early Whether the draw decides.
 * @property {string} [id] Identity, base64url: for the draw.
 * @property {number} [tag] Group of networks: for the draw.
 * @property {number} [line] Place in the whole line.
 * @property {number} [rank] Rank in the draw, once it was computed.
 *
 * @typedef {object} Outlook
 * @property {boolean} turn Whether to ask for the ticket now.
 * @property {number | null} ahead People before this one; null if unknown.
 * @property {number | null} low Seconds to wait at the least; null if unknown.
 * @property {number | null} high And at the most.
 * @property {boolean} drawn Whether the order is known.
 * @property {number} seconds When to look again.
 */

/** Ranks of who came after doors begin here. */
const LATE = 2 ** 52;
/** Groups of networks. */
const TAGS = 2 ** 18;
/** Longest time that is named, seconds. */
const LONGEST_S = 86400;
/** What is left for asking and getting in, seconds. */
const MARGIN_S = 5;
/** When to look again, seconds: at least, at most, and when nothing is known. */
const [SOON_S, SELDOM_S, UNKNOWN_S] = [2, 60, 10];
/** Pages that learn of the draw in the same second fetch it spread over this time, seconds. */
const SPREAD_S = 4;

export class Room {
    #slug;
    #request;
    #storage;
    #digest;
    #random;
    /** @type {Kept | null} */
    #kept = null;
    /** The draw as pages need it. @type {any} */
    #draw = null;
    /** Not before this many looks more: the draw is fetched by all, but not by all at once. */
    #waitForDraw = true;

    /**
     * @param {string} slug The event.
     * @param {{request?: typeof request, storage?: Pick<Storage, 'getItem' | 'setItem' | 'removeItem'> | null,
     *     digest?: typeof hmac, random?: () => number}} [outside]
     */
    constructor(slug, outside = {}) {
        this.#slug = slug;
        this.#request = outside.request ?? request;
        this.#storage = outside.storage === undefined ? ownStorage() : outside.storage;
        this.#digest = outside.digest ?? hmac;
        this.#random = outside.random ?? Math.random;
        this.#kept = this.#load();
    }

    /** What to show when asking for a way in. */
    get token() {
        return this.#kept?.token ?? null;
    }

    /**
     * Keeps the place that was answered.
     * @param {any} body
     */
    keep(body) {
        if (typeof body?.token !== 'string' || body.token === this.#kept?.token) {
            return;
        }
        const { token, early, id, tag, line } = body;
        this.#kept = { token, early: early === true, id, tag, line };
        try {
            this.#storage?.setItem(this.#name, JSON.stringify(this.#kept));
        } catch {
            // A browser that keeps nothing: then for as long as this page is open.
        }
    }

    /** The place is of no use any more. */
    leave() {
        this.#kept = null;
        try {
            this.#storage?.removeItem(this.#name);
        } catch {
            // Nothing was kept.
        }
    }

    /**
     * Looks how far the line has come.
     * @returns {Promise<Outlook | null>} `null` without a place, or where the server must say: then ask it.
     */
    async look() {
        const kept = this.#kept;
        if (!kept) {
            return null;
        }
        const { body: queue } = await this.#request(this.#address('queue.json'), { cache: 'default' });
        if (queue?.state === 'ended') {
            return now(true);
        }
        if (kept.early && queue?.state === 'gathering') {
            return { turn: false, ahead: null, low: null, high: null, drawn: false, seconds: UNKNOWN_S };
        }
        const place = kept.early ? await this.#drawn(kept) : lined(kept);
        return place && outlook(place, queue);
    }

    /** @param {Kept} kept @returns {Promise<{rank: number, place: number} | null>} */
    async #drawn(kept) {
        if (typeof kept.id !== 'string' || typeof kept.tag !== 'number') {
            return null;
        }
        if (!this.#draw) {
            if (this.#waitForDraw) {
                this.#waitForDraw = false;
                await new Promise((resolve) => setTimeout(resolve, 1000 * SPREAD_S * this.#random()));
            }
            this.#draw = (await this.#request(this.#address('draw/page.json'), { cache: 'default' })).body;
        }
        const draw = this.#draw;
        if (kept.rank === undefined) {
            const number = await this.#digest(draw.key, 'minassa draw number 1\0', kept.id);
            if (number === null) {
                return null;
            }
            const shard = Math.floor((kept.tag * draw.shards) / TAGS);
            const { body: heavy } = await this.#request(this.#address(`draw/heavy-${shard}.json`), { cache: 'default' });
            kept.rank = rankOf(number, new Map(heavy).get(kept.tag), draw.allowance);
        }
        return { rank: kept.rank, place: placeOfRank(kept.rank, draw) };
    }

    get #name() {
        return `minassa.room.${this.#slug}`;
    }

    /** @param {string} file */
    #address(file) {
        return `/api/events/${encodeURIComponent(this.#slug)}/${file}`;
    }

    /** @returns {Kept | null} */
    #load() {
        try {
            const kept = JSON.parse(this.#storage?.getItem(this.#name) ?? 'null');
            return typeof kept?.token === 'string' ? kept : null;
        } catch {
            return null;
        }
    }
}

/** @param {Kept} kept */
function lined(kept) {
    return typeof kept.line === 'number' ? { rank: LATE + kept.line, place: kept.line } : null;
}

/** @param {boolean} turn @returns {Outlook} */
function now(turn) {
    return { turn, ahead: 0, low: 0, high: MARGIN_S, drawn: true, seconds: SOON_S };
}

/**
 * @param {number} number Of the token, 0 to 2^32 - 1.
 * @param {number | undefined} count Tokens of its group, if that is heavy.
 * @param {number} allowance
 */
export function rankOf(number, count, allowance) {
    return count === undefined ? number : Math.min(LATE, Math.floor((number * count) / allowance));
}

/**
 * How many are before a rank of the draw.
 * @param {number} rank
 * @param {{allowance: number, light: number, knots: [number, number][]}} draw
 */
export function placeOfRank(rank, draw) {
    const y = (rank * draw.allowance) / 2 ** 32;
    let [x0, s0] = [0, 0];
    for (const [x, s] of draw.knots) {
        if (y < x) {
            s0 += ((s - s0) * (y - x0)) / (x - x0);
            break;
        }
        [x0, s0] = [x, s];
    }
    return Math.floor(draw.light * Math.min(1, rank / 2 ** 32) + s0);
}

/**
 * @param {{rank: number, place: number}} mine
 * @param {any} queue
 * @returns {Outlook}
 */
export function outlook({ rank, place }, queue) {
    // Where nobody waits, nobody is before anybody: a server that lost the line lets the token be shown.
    if (rank < queue.admitted_through || queue.state === 'clear') {
        return now(true);
    }
    // Places of a draw are estimates: nobody who waits is told that nobody is before them.
    const ahead = Math.max(1, place - queue.admitted);
    const rate = Math.round(queue.rate * 1000);
    if (rate === 0) {
        return { turn: false, ahead, low: null, high: null, drawn: true, seconds: UNKNOWN_S };
    }
    const low = Math.min(LONGEST_S, Math.floor((2000 * ahead) / (3 * rate)));
    const high = MARGIN_S + Math.min(LONGEST_S, Math.ceil((3000 * ahead) / (2 * rate)));
    const seconds = Math.min(SELDOM_S, Math.max(SOON_S, Math.floor(low / 4)));
    return { turn: false, ahead, low, high, drawn: true, seconds };
}

/** Where places are kept; a browser may forbid it. */
function ownStorage() {
    try {
        return globalThis.localStorage ?? null;
    } catch {
        return null;
    }
}

/**
 * First 32 bits of an HMAC-SHA256.
 * @param {string} key base64url
 * @param {string} domain
 * @param {string} message base64url
 * @returns {Promise<number | null>} `null` where the browser does not compute it (a page without HTTPS).
 */
async function hmac(key, domain, message) {
    const subtle = globalThis.crypto?.subtle;
    if (!subtle) {
        return null;
    }
    const algorithm = { name: 'HMAC', hash: 'SHA-256' };
    const imported = await subtle.importKey('raw', bytes(key), algorithm, false, ['sign']);
    const text = new TextEncoder().encode(domain);
    const id = bytes(message);
    const signed = new Uint8Array(text.length + id.length);
    signed.set(text);
    signed.set(id, text.length);
    return new DataView(await subtle.sign('HMAC', imported, signed)).getUint32(0);
}

/** @param {string} base64url */
function bytes(base64url) {
    const binary = atob(base64url.replaceAll('-', '+').replaceAll('_', '/'));
    return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}
