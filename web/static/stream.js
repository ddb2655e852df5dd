// The pushed stream: one long response that carries the parts as they appear.
//
// Reads the socket as fast as it delivers, whatever the player does, and keeps a minute of parts in the ring. Comes
// back by itself: after an end, an error or three silent seconds it asks again from the part after its newest one.
// Parts that are missing in between it asks for by number at the files door. What arrives is told to the handlers;
// playing is none of its business.

import { Problem, problemOf, retryAfter } from './api.js';
import { Backoff, Nap, jittered } from './backoff.js';
import { StreamSplitter, parsePart } from './boxes.js';
import { Waiting } from './tickets.js';
/** @typedef {import('./boxes.js').Part} Part */
/** @typedef {import('./ring.js').Ring} Ring */
/** @typedef {import('./tickets.js').Tickets} Tickets */
/** @typedef {import('./tickets.js').Place} Place */

/** Name of the status that edges insert between parts. */
export const STATUS_SCHEME = 'urn:minassa:status:1';

/** Silence after which a connection of tier 1 counts as dead; its edge speaks every two seconds at least. */
const SILENCE_MS = 3000;
/** Parts of the slowest tier. */
const TIER_MAX = 8;
/** Parts that come closer together than this were flushed together. */
const TOGETHER_MS = 200;
/** A connection that lived this long was a good one: the next attempt is soon. */
const HEALTHY_MS = 2000;
/** Most parts asked for again in one hole: a longer one is jumped. */
const AGAIN_PARTS = 16;
/** Most such requests at a time. */
const AGAIN_AT_ONCE = 3;
/** One such request may take this long; later the part would come too late. */
const AGAIN_MS = 2000;
/** When a page without a ticket, for want of control, asks again after it was not let in, seconds. */
const NO_ROOM_S = 10;
/** Longest wait that a server may ask for. */
const WAIT_MS_MAX = 60000;

/** An attempt that ended; the next comes after `wait` ms at least. */
class Interrupted extends Error {
    /** @param {string} reason @param {number} wait */
    constructor(reason, wait = 0) {
        super(reason);
        this.wait = wait;
    }
}

/**
 * @typedef {'connecting' | 'open' | 'reconnecting' | 'waiting' | 'ended' | 'stopped'} Connection
 *
 * @typedef {object} StreamHandlers
 * @property {(bytes: Uint8Array) => void} init
 * @property {(part: Part) => void} part A part that was not in the ring before.
 * @property {() => void} [entering] There is a way in, and the request for the stream comes next.
 * @property {() => void} gone A part that was asked for again will not come.
 * @property {(status: any, at: number) => void} status What the edge says once a second, and the end of its newest
 *   part then, media time in seconds.
 * @property {(connection: Connection, why: unknown) => void} connection
 *
 * @typedef {object} StreamCounters
 * @property {number} parts_received Distinct parts, by stream or by number.
 * @property {number} duplicates
 * @property {number} parts_asked Asked for by number.
 * @property {number} parts_recovered … and received.
 * @property {number} parts_missed … and not; gone.
 * @property {number} bytes
 * @property {number} connects Responses that began.
 * @property {number} reconnects Attempts after the first.
 */

/** @returns {StreamCounters} */
export function streamCounters() {
    return {
        parts_received: 0,
        duplicates: 0,
        parts_asked: 0,
        parts_recovered: 0,
        parts_missed: 0,
        bytes: 0,
        connects: 0,
        reconnects: 0,
    };
}

export class Stream {
    #tickets;
    #ring;
    #rendition;
    #handlers;
    #fetch;
    #now;
    #random;
    #backoff;
    #nap = new Nap();
    #running = false;
    /** @type {AbortController | null} */
    #attempt = null;
    /** @type {Place | null} */
    #place = null;
    #lastByte = 0;
    /** Ladder level as last told: from L2 on, tiers may be slower than the ticket said. */
    #level = 0;
    /** When the last part came, ms, how many came with it, and how many the time before. */
    #flush = { at: 0, parts: 0, before: 0 };
    /** Whether the event has ended. */
    #over = false;
    /** @type {number[]} Parts to ask for again, oldest first. */
    #missing = [];
    #asking = 0;
    #awaited = 0;

    /** @type {StreamCounters} */
    counters;

    /**
     * @param {object} given
     * @param {Tickets} given.tickets
     * @param {Ring} given.ring
     * @param {string} given.rendition
     * @param {StreamHandlers} given.handlers
     * @param {StreamCounters} [given.counters] To go on counting where an earlier stream left off.
     * @param {typeof globalThis.fetch} [given.fetch]
     * @param {() => number} [given.now] ms, monotonic.
     * @param {() => number} [given.random]
     */
    constructor({ tickets, ring, rendition, handlers, counters, fetch, now, random }) {
        this.#tickets = tickets;
        this.#ring = ring;
        this.#rendition = rendition;
        this.#handlers = handlers;
        this.#fetch = fetch ?? globalThis.fetch.bind(globalThis);
        this.#now = now ?? (() => performance.now());
        this.#random = random ?? Math.random;
        this.#backoff = new Backoff({ random: this.#random });
        this.counters = counters ?? streamCounters();
    }

    /** Connects and stays connected until `stop` or the end of the event. */
    start() {
        if (!this.#running) {
            this.#running = true;
            this.#run();
        }
    }

    stop() {
        if (this.#running) {
            this.#running = false;
            this.#attempt?.abort();
            this.#nap.wake();
            this.#awaited -= this.#missing.length;
            this.#missing = [];
            this.#handlers.connection('stopped', null);
        }
    }

    /** There may be a network again: do not wait for the next attempt. */
    hurry() {
        this.#backoff.reset();
        this.#nap.wake();
    }

    /** Parts between two flushes, as the ticket said or, where the edge has slowed down since, as they come. */
    get tier() {
        const { parts, before } = this.#flush;
        return Math.max(this.#place?.tier ?? 1, Math.min(parts, before, TIER_MAX));
    }

    /** Whether missing parts are on their way. */
    get awaiting() {
        return this.#awaited > 0;
    }

    async #run() {
        this.#handlers.connection('connecting', null);
        while (this.#running) {
            const began = this.#now();
            /** @type {unknown} */
            let why = null;
            try {
                await this.#connect();
            } catch (error) {
                why = error;
            }
            this.#attempt = null;
            if (!this.#running) {
                return;
            }
            if (this.#over) {
                this.#running = false;
                this.#handlers.connection('ended', null);
                return;
            }
            if (this.#lastByte - began >= HEALTHY_MS) {
                this.#backoff.reset();
            }
            this.counters.reconnects++;
            this.#handlers.connection(why instanceof Waiting ? 'waiting' : 'reconnecting', why);
            const asked = why instanceof Waiting ? why.seconds * 1000 : why instanceof Interrupted ? why.wait : 0;
            const least = asked > 0 ? jittered(Math.min(WAIT_MS_MAX, asked), this.#random) : 0;
            await this.#nap.sleep(Math.max(least, this.#backoff.next()));
        }
    }

    /** One response, to its end. */
    async #connect() {
        const place = await this.#tickets.current();
        this.#place = place;
        if (!this.#running) {
            return;
        }
        this.#handlers.entering?.();
        const address = new URL(`${this.#rendition}.mp4`, place.push);
        if (place.tier > 1) {
            address.searchParams.set('tier', String(place.tier));
        }
        if (this.#ring.newest) {
            address.searchParams.set('from', String(this.#ring.newest.number + 1));
        }
        const attempt = new AbortController();
        this.#attempt = attempt;
        this.#lastByte = this.#now();
        // The second line: the first is that a dead peer ends read(). Timers are late in hidden pages, never absent.
        const watch = setInterval(() => {
            if (this.#now() - this.#lastByte > this.#patience()) {
                attempt.abort();
            }
        }, 250);
        try {
            // No credentials and nothing that would need a preflight.
            const response = await this.#fetch(address, {
                signal: attempt.signal,
                cache: 'no-store',
                credentials: 'omit',
            });
            await this.#admitted(response, place);
            this.counters.connects++;
            this.#lastByte = this.#now();
            await this.#read(response);
            throw new Interrupted('the response ended');
        } finally {
            clearInterval(watch);
            attempt.abort();
        }
    }

    /** How long this connection may be silent, ms. */
    #patience() {
        const tier = this.#level >= 2 ? 8 : this.tier;
        // Between flushes of a slow tier an edge speaks only when the programme stalls, after one second a part.
        return SILENCE_MS + (tier > 1 ? tier * 1000 : 0);
    }

    /**
     * @param {Response} response
     * @param {Place} place
     */
    async #admitted(response, place) {
        // After the end, endless addresses lead to the recording.
        const arrived = response.redirected ? new URL(response.url).pathname : '';
        if (/\/recording\b/.test(arrived)) {
            this.#over = true;
            throw new Interrupted('the event has ended');
        }
        if (/\/delayed\b/.test(arrived)) {
            // Where players are sent that know no waiting room. This page has one, as soon as control is back.
            throw new Waiting(NO_ROOM_S, { delayed: response.url.replace(/delayed\/[^/]*$/, 'delayed.m3u8') });
        }
        if (response.ok && response.body) {
            return;
        }
        if ((response.status === 401 || response.status === 403) && place.ticketed) {
            this.#tickets.refused();
            throw new Interrupted('the ticket was refused');
        }
        if (response.status >= 400 && response.status < 500 && response.status !== 429 && this.#ring.newest) {
            // Whoever numbers parts now does not know ours: begin anew, at the present.
            this.#ring.clear();
        }
        const asked = retryAfter(response.headers.get('retry-after'));
        const problem = await problemOf(response);
        throw new Interrupted(problem.message, asked !== null ? asked * 1000 : problem.status === 404 ? 2000 : 0);
    }

    /** @param {Response} response */
    async #read(response) {
        const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
        const splitter = new StreamSplitter();
        let open = false;
        while (this.#running && !this.#over) {
            const { done, value } = await reader.read();
            if (done) {
                return;
            }
            this.#lastByte = this.#now();
            this.counters.bytes += value.length;
            for (const item of splitter.push(value)) {
                if (item.kind === 'init') {
                    this.#handlers.init(item.bytes);
                } else if (item.kind === 'part') {
                    this.#received(item.part);
                } else if (item.event.scheme === STATUS_SCHEME) {
                    this.#told(item.event);
                }
            }
            if (!open) {
                open = true;
                this.#handlers.connection('open', null);
            }
        }
    }

    /** @param {Part} part */
    #received(part) {
        const newest = this.#ring.newest;
        if (!this.#ring.put(part)) {
            this.counters.duplicates++;
            return;
        }
        this.counters.parts_received++;
        const now = this.#now();
        const together = now - this.#flush.at < TOGETHER_MS;
        const { parts, before } = this.#flush;
        this.#flush = { at: now, parts: together ? parts + 1 : 1, before: together ? before : parts };
        if (newest && part.number > newest.number + 1) {
            this.#askAgain(newest.number + 1, part.number - 1);
        }
        this.#handlers.part(part);
    }

    /** @param {import('./boxes.js').StreamEvent} event */
    #told({ message, time }) {
        /** @type {any} */
        let status;
        try {
            status = JSON.parse(new TextDecoder().decode(message));
        } catch {
            return; // One unreadable word in a stream of many; the next comes in a second.
        }
        this.#level = Number(status?.l) || 0;
        this.#handlers.status(status, time);
        if (status?.s === 'ended') {
            this.#over = true;
        }
    }

    /**
     * @param {number} first
     * @param {number} last
     */
    #askAgain(first, last) {
        const from = Math.max(first, last - AGAIN_PARTS + 1);
        this.counters.parts_missed += from - first;
        for (let number = from; number <= last; number++) {
            this.#missing.push(number);
            this.#awaited++;
        }
        while (this.#asking < AGAIN_AT_ONCE && this.#missing.length > 0) {
            this.#asking++;
            this.#askLoop();
        }
    }

    /** Works through the list of missing parts. */
    async #askLoop() {
        for (let number = this.#missing.shift(); number !== undefined; number = this.#missing.shift()) {
            this.counters.parts_asked++;
            let gone = false;
            const part = await this.#ask(number).catch(() => null);
            if (part && part.number === number && this.#ring.put(part)) {
                this.counters.parts_received++;
                this.counters.parts_recovered++;
                this.#handlers.part(part);
            } else if (!this.#ring.has(number)) {
                this.counters.parts_missed++;
                gone = true;
            }
            this.#awaited--;
            if (gone) {
                this.#handlers.gone();
            }
        }
        this.#asking--;
    }

    /** @param {number} number */
    async #ask(number) {
        const files = /** @type {Place} */ (this.#place).files;
        const limit = new AbortController();
        const timer = setTimeout(() => limit.abort(), AGAIN_MS);
        try {
            const address = new URL(`${this.#rendition}/${number}.m4s`, files);
            const response = await this.#fetch(address, { signal: limit.signal, credentials: 'omit' });
            if (!response.ok) {
                throw new Problem({ status: response.status });
            }
            return parsePart(new Uint8Array(await response.arrayBuffer()));
        } finally {
            clearTimeout(timer);
        }
    }
}
