// Where to listen, and the ticket that opens the door.

import { Problem, request } from './api.js';
import { time } from './event.js';
/** @typedef {import('./event.js').EventView} EventView */

/**
 * @typedef {object} Place
 * @property {string} push Address in front of `opus-48.mp4`, ending in `/`.
 * @property {string} files Address in front of `index.m3u8` and `opus-48/17.m4s`, ending in `/`.
 * @property {number} tier Parts between two flushes: 1, 2, 4 or 8.
 * @property {boolean} ticketed Whether the addresses hold a ticket.
 */

/** A ticket is not used in its last seconds: the request would race with its end. */
const MARGIN_MS = 5000;
/** Control gets this long to answer; it may be dead or hang, and listening goes on without it. */
const PATIENCE_MS = 2500;

/** The answer "not yet": the waiting room. */
export class Waiting extends Error {
    /** @param {number} seconds @param {number | null} place */
    constructor(seconds, place) {
        super('waiting');
        this.seconds = seconds;
        this.place = place;
    }
}

/** Keeps one ticket, asks for another only when it must. */
export class Tickets {
    #slug;
    #request;
    #now;
    /** @type {Place | null} */
    #place = null;
    #expires = 0;
    /** @type {Place | null} Where to go without a ticket when control is away. */
    #plain = null;

    /**
     * @param {string} slug The event.
     * @param {{request?: typeof request, now?: () => number}} [outside]
     */
    constructor(slug, outside = {}) {
        this.#slug = slug;
        this.#request = outside.request ?? request;
        this.#now = outside.now ?? Date.now;
    }

    /**
     * Learns the doors from elsewhere, for the case that no ticket was ever answered.
     * @param {EventView} event
     */
    learn(event) {
        if (!this.#plain && event.push && event.files) {
            const live = `live/${this.#slug}/`;
            const [push, files] = [event.push, event.files].map((door) => new URL(live, withSlash(door)).href);
            this.#plain = { push, files, tier: 1, ticketed: false };
        }
    }

    /** Where replay and downloads are, if a door was ever named: an origin ending in `/`. */
    get files() {
        const place = this.#place ?? this.#plain;
        return place ? new URL('/', place.files).href : null;
    }

    /**
     * @returns {Promise<Place>}
     * @throws {Waiting} in the waiting room
     * @throws {Problem} when there is no way in
     */
    async current() {
        if (this.#place && this.#now() < this.#expires - MARGIN_MS) {
            return this.#place;
        }
        try {
            const address = `/api/events/${encodeURIComponent(this.#slug)}/ticket`;
            const { status, body } = await this.#request(address, { method: 'POST', timeout: PATIENCE_MS });
            if (status === 202) {
                const place = Number.isFinite(body?.place) ? body.place : null;
                throw new Waiting(Math.min(300, Math.max(1, Number(body?.retry_after) || 5)), place);
            }
            this.#place = placeOf(body);
            this.#expires = time(body.expires) ?? 0;
            this.#plain = plain(this.#place);
            return this.#place;
        } catch (error) {
            if (error instanceof Problem && error.away && this.#plain) {
                return this.#plain;
            }
            throw error;
        }
    }

    /** The door did not take the ticket. */
    refused() {
        this.#place = null;
    }
}

/**
 * @param {any} body A ticket answer.
 * @returns {Place}
 */
export function placeOf(body) {
    try {
        const push = withSlash(new URL(body.push).href);
        const files = new URL('.', body.hls).href;
        const tier = [1, 2, 4, 8].includes(body.tier) ? body.tier : 1;
        return { push, files, tier, ticketed: true };
    } catch (error) {
        throw new Problem({ type: 'network', detail: `not a ticket: ${error}` });
    }
}

/**
 * @param {Place} place
 * @returns {Place} The same doors for a newcomer without a ticket.
 */
export function plain(place) {
    const without = (/** @type {string} */ address) => address.replace(/\/t\/[^/]+\//, '/');
    return { ...place, push: without(place.push), files: without(place.files), ticketed: false };
}

/** @param {string} address */
function withSlash(address) {
    return address.endsWith('/') ? address : `${address}/`;
}
