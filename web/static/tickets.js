// Where to listen, and the ticket that opens the door.

import { Problem, request } from './api.js';
import { Answering } from './challenge.js';
import { time } from './event.js';
import { Room } from './room.js';
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
/** A ticket is renewed at a random point of this part of its life: pages that came together do not come back together. */
const [RENEW_FROM, RENEW_OVER] = [0.5, 0.3];
/** A renewal that failed is tried again after this time, or up to twice as much. */
const RETRY_MS = 30000;
/** Control gets this long to answer; it may be dead or hang, and listening goes on without it. */
const PATIENCE_MS = 2500;
/** Challenges that are answered before one pauses (a phone that changes networks is asked anew), and the pause, seconds. */
const [CHALLENGES_MAX, CHALLENGED_S] = [3, 15];

/** The answer "not yet": the waiting room. */
export class Waiting extends Error {
    /**
     * @param {number} seconds When to ask again.
     * @param {{place?: number | null, low?: number | null, high?: number | null, drawn?: boolean,
     *     delayed?: string | null}} [outlook] People ahead and seconds to wait, as far as they are known; whether the
     *     order is; where the delayed feed is heard meanwhile.
     */
    constructor(seconds, { place = null, low = null, high = null, drawn = true, delayed = null } = {}) {
        super('waiting');
        this.seconds = seconds;
        this.place = place;
        this.low = low;
        this.high = high;
        this.drawn = drawn;
        this.delayed = delayed;
    }
}

/** Keeps one ticket, has it renewed, and waits for the first in the waiting room if there is one. */
export class Tickets {
    #slug;
    #request;
    #now;
    #room;
    /** The ticket by itself. */
    #ticket = '';
    /** When it is worth the while to have it renewed, ms since 1970. */
    #renew = 0;
    /** @type {Place | null} */
    #place = null;
    #expires = 0;
    /** @type {string | null} Where the delayed feed is, as last told. */
    #delayed = null;
    #changed;
    #answer;
    /** @type {Answering | null} */
    #answering = null;
    /** @type {Place | null} Where to go without a ticket when control is away. */
    #plain = null;

    /**
     * @param {string} slug The event.
     * @param {{request?: typeof request, now?: () => number, room?: Room, changed?: () => void,
     *     answer?: (answering: Answering, challenge: any, changed: () => void) => Promise<string>}} [outside] `changed`: how
     *     far a challenge is may have changed.
     */
    constructor(slug, outside = {}) {
        this.#slug = slug;
        this.#request = outside.request ?? request;
        this.#now = outside.now ?? Date.now;
        this.#changed = outside.changed ?? (() => {});
        this.#answer = outside.answer ?? ((answering, challenge, changed) => answering.run(challenge, { changed }));
        this.#room = outside.room ?? new Room(slug, { request: this.#request });
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
        const good = this.#place !== null && this.#now() < this.#expires - MARGIN_MS;
        if (this.#place && good && this.#now() < this.#renew) {
            return this.#place;
        }
        try {
            return await this.#ask(good);
        } catch (error) {
            if (this.#place && good) {
                // There is time: it is tried again with the next connection, but not by all at once.
                this.#renew = this.#now() + RETRY_MS * (1 + Math.random());
                return this.#place;
            }
            if (error instanceof Problem && error.away && this.#plain) {
                return this.#plain;
            }
            throw error;
        }
    }

    /** @param {boolean} renewal Whether the ticket still opens doors. @returns {Promise<Place>} */
    async #ask(renewal) {
        const outlook = renewal ? null : await this.#look();
        if (outlook && !outlook.turn) {
            const { ahead: place, low, high, drawn, seconds } = outlook;
            throw new Waiting(seconds, { place, low, high, drawn, delayed: drawn ? this.#delayed : null });
        }
        const shown = renewal ? { ticket: this.#ticket } : this.#room.token ? { token: this.#room.token } : {};
        /** @type {{status: number, body: any}} */
        let answer;
        try {
            answer = await this.#post(shown);
        } catch (error) {
            if (error instanceof Problem && error.type === 'room-token') {
                // Of another night, or of another installation: asked without it the next time.
                this.#room.leave();
                throw new Waiting(1);
            }
            throw error;
        }
        const { status, body } = answer;
        if (status === 202) {
            this.#room.keep(body);
            this.#delayed = typeof body?.delayed === 'string' ? body.delayed : null;
            const known = (/** @type {unknown} */ value) => (typeof value === 'number' ? value : null);
            throw new Waiting(Math.min(300, Math.max(1, Number(body?.retry_after) || 5)), {
                place: known(body?.place),
                low: known(body?.low_s),
                high: known(body?.high_s),
                drawn: body?.state !== 'gathering',
                delayed: this.#delayed,
            });
        }
        this.#place = placeOf(body);
        this.#ticket = String(body.ticket);
        this.#expires = time(body.expires) ?? 0;
        this.#renew = this.#now() + (this.#expires - this.#now()) * (RENEW_FROM + RENEW_OVER * Math.random());
        this.#plain = plain(this.#place);
        return this.#place;
    }

    /** Asks, and answers what is asked back. @param {object} shown @returns {Promise<{status: number, body: any}>} */
    async #post(shown) {
        const address = `/api/events/${encodeURIComponent(this.#slug)}/ticket`;
        let json = shown;
        for (let challenges = 0; ; challenges++) {
            try {
                return await this.#request(address, { method: 'POST', json, timeout: PATIENCE_MS });
            } catch (error) {
                if (!(error instanceof Problem) || error.type !== 'challenge' || !error.body) {
                    throw error;
                }
                if (challenges === CHALLENGES_MAX) {
                    throw new Waiting(CHALLENGED_S);
                }
                json = { ...shown, solution: await this.#answered(error.body) };
            }
        }
    }

    /** @param {any} challenge */
    async #answered(challenge) {
        const answering = new Answering();
        this.#answering = answering;
        this.#changed();
        try {
            return await this.#answer(answering, challenge, this.#changed);
        } finally {
            if (this.#answering === answering) {
                this.#answering = null;
            }
            this.#changed();
        }
    }

    /** The challenge that is being answered, if there is one. */
    get answering() {
        return this.#answering;
    }

    /** Nobody wants the ticket any more that is being asked for. */
    cancel() {
        this.#answering?.cancel();
    }

    /** How far the line has come; a server that does not say is asked for the ticket itself. */
    async #look() {
        try {
            return await this.#room.look();
        } catch {
            return null;
        }
    }

    /** Whether there is a place in the waiting room. */
    get placed() {
        return this.#room.token !== null;
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
