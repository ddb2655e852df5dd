// One listener's way into one event: tickets, stream and player put together. No document here but the one element
// that makes the sound.

import { Delayed, RESERVE } from './delayed.js';
import { PlainPlayer, plainSources } from './plain.js';
import { Player, playerCounters, support } from './player.js';
import { Ring } from './ring.js';
import { Stream, streamCounters } from './stream.js';
import { Tickets, Waiting } from './tickets.js';

/** What everyone gets who can; the edge may change it inside the response. */
const RENDITION = 'opus-48';
/** What was received is played to its end, but no longer than this. */
const TAIL_MS = 8000;

/**
 * @typedef {'off' | 'armed' | 'connecting' | 'waiting' | 'reconnecting' | 'buffering' | 'playing' | 'unplayable'} Phase
 *   `armed`: to begin by itself; `waiting`: in the waiting room, whether the delayed feed is heard there or not.
 *
 * @typedef {object} ListeningHandlers
 * @property {() => void} changed The phase may have changed.
 * @property {(status: any) => void} status What the edge says once a second.
 * @property {() => void} ended The event is over and the last of it was played.
 */

export class Listening {
    #audio;
    #handlers;
    #managed;
    #ring = new Ring();
    /** @type {Stream | null} */
    #stream = null;
    /** @type {Player | null} */
    #player = null;
    /** @type {PlainPlayer | null} */
    #plain = null;
    /** @type {Delayed | null} What is heard in the waiting room. */
    #delayed = null;
    /** @type {import('./stream.js').Connection | 'none'} */
    #connection = 'none';
    /** @type {'off' | 'armed' | 'on' | 'ending' | 'unplayable'} */
    #mode = 'off';
    /** @type {AbortController | null} */
    #listeners = null;
    /** @type {{end: number, wall: number} | null} A media time and the civil time it is due, ms. */
    #clock = null;

    /** Why it is not connected, if the reason is known. @type {unknown} */
    why = null;

    /** @type {Tickets} */
    tickets;

    counters = { stream: streamCounters(), player: playerCounters() };

    /**
     * @param {object} given
     * @param {string} given.slug
     * @param {HTMLAudioElement} given.audio
     * @param {ListeningHandlers} given.handlers
     * @param {boolean} [given.managed] Whether ManagedMediaSource may be used.
     */
    constructor({ slug, audio, handlers, managed = false }) {
        this.#audio = audio;
        this.#handlers = handlers;
        this.#managed = managed;
        this.tickets = new Tickets(slug, { changed: () => handlers.changed() });
    }

    /** @returns {Phase} */
    get phase() {
        if (this.#mode === 'off' || this.#mode === 'unplayable' || this.#mode === 'armed') {
            return this.#mode;
        }
        if (this.#connection === 'waiting' && this.#delayed) {
            return 'waiting';
        }
        if (this.#player?.audible || this.#mode === 'ending') {
            return 'playing';
        }
        switch (this.#connection) {
            case 'waiting':
                return 'waiting';
            case 'reconnecting':
                return 'reconnecting';
            case 'open':
                return this.#plain ? 'playing' : 'buffering';
            default:
                return 'connecting';
        }
    }

    /** Whether the delayed feed is heard now. */
    get behind() {
        return this.phase === 'waiting' && (this.#player?.audible ?? false);
    }

    /** Whether the stream itself tells how things are. */
    get informed() {
        return this.#stream !== null && this.#connection === 'open';
    }

    /** The ring, for a look inside. */
    get ring() {
        return this.#ring;
    }

    /** Seconds between what is heard and the newest part; 0 if unknown. */
    get delay() {
        return this.#player?.delay ?? 0;
    }

    /** Number of the part that is heard. */
    get part() {
        const at = this.#audio.currentTime;
        return this.#ring.after(at).find((part) => part.start <= at)?.number ?? null;
    }

    /**
     * @param {number} at Media time, seconds.
     * @returns {number | null} When it was due, ms since 1970 by the server's clock.
     */
    wallclock(at) {
        return this.#clock && this.#clock.wall - (this.#clock.end - at) * 1000;
    }

    /**
     * Begins; to be called from the listener's own click.
     * @param {boolean} now Whether there is something to hear; otherwise `go` will be called when there is.
     */
    async start(now) {
        if (this.#mode !== 'off' && this.#mode !== 'unplayable') {
            return;
        }
        const able = support(this.#managed);
        const sources = plainSources((type) => this.#audio.canPlayType(type));
        if (!able && sources.length === 0) {
            this.#set('unplayable');
            return;
        }
        this.#ring.clear();
        this.#clock = null;
        this.#connection = 'none';
        this.#listen();
        this.#set('armed');
        const playing = able ? this.#withParts(able) : this.#withAddress(sources);
        if (now) {
            this.go();
        }
        try {
            await playing;
        } catch (error) {
            this.stop();
            throw error;
        }
    }

    /** There is something to hear. */
    go() {
        if (this.#mode === 'armed') {
            this.#set('on');
            this.#stream?.start();
            this.#plain?.connect();
        }
    }

    /** Ends listening and every request. */
    stop() {
        this.#listeners?.abort();
        this.tickets.cancel();
        this.#stream?.stop();
        this.#player?.stop();
        this.#plain?.stop();
        this.#delayed?.stop();
        this.#stream = null;
        this.#player = null;
        this.#plain = null;
        this.#delayed = null;
        this.#set('off');
    }

    /** @param {import('./player.js').Support} able */
    #withParts(able) {
        const player = new Player({
            audio: this.#audio,
            ring: this.#ring,
            support: able,
            failed: () => this.#fallBack(),
            awaited: () => this.#stream?.awaiting ?? false,
            counters: this.counters.player,
        });
        this.#player = player;
        const stream = new Stream({
            tickets: this.tickets,
            ring: this.#ring,
            rendition: RENDITION,
            counters: this.counters.stream,
            handlers: {
                init: (bytes) => player.init(bytes),
                part: (part) => {
                    player.setTier(stream.tier);
                    player.part(part);
                },
                entering: () => this.#enter(),
                gone: () => player.nudge(),
                status: (status, at) => this.#told(status, at),
                connection: (connection, why) => this.#connected(connection, why),
            },
        });
        this.#stream = stream;
        return player.start();
    }

    /**
     * Nothing to hear but the delayed feed.
     * @param {string} address
     */
    #wait(address) {
        const player = this.#player;
        if (!player || this.#delayed) {
            return;
        }
        player.setReserve(RESERVE);
        this.#ring.clear();
        this.#delayed = new Delayed({
            init: (bytes) => player.init(bytes),
            part: (part) => {
                if (this.#ring.put(part)) {
                    player.part(part);
                }
            },
        });
        this.#delayed.start(address);
    }

    /** There is a way in: what was heard meanwhile is a minute old, and is not gone on from. */
    #enter() {
        if (this.#delayed) {
            this.#delayed.stop();
            this.#delayed = null;
            this.#ring.clear();
            this.#player?.setTier(1);
        }
    }

    /** @param {import('./plain.js').PlainSource[]} sources */
    #withAddress(sources) {
        if (sources.length === 0) {
            this.#set('unplayable');
            return Promise.resolve();
        }
        this.#plain = new PlainPlayer({
            audio: this.#audio,
            tickets: this.tickets,
            sources,
            handlers: { connection: (connection, why) => this.#connected(connection, why) },
        });
        return this.#plain.start();
    }

    /** Parts do not play here, whatever the browser said of itself. */
    #fallBack() {
        const sources = plainSources((type) => this.#audio.canPlayType(type));
        this.#stream?.stop();
        this.#player?.stop();
        this.#delayed?.stop();
        this.#stream = null;
        this.#player = null;
        this.#delayed = null;
        this.#withAddress(sources).catch((error) => {
            this.why = error;
        });
        this.#plain?.connect();
        this.#handlers.changed();
    }

    #listen() {
        this.#listeners?.abort();
        const { signal } = (this.#listeners = new AbortController());
        const audio = this.#audio;
        for (const name of ['playing', 'waiting', 'seeked']) {
            audio.addEventListener(name, () => this.#handlers.changed(), { signal });
        }
        audio.addEventListener('ended', () => this.#finished(), { signal });
        audio.addEventListener('pause', () => this.#paused(), { signal });
        document.addEventListener(
            'visibilitychange',
            () => {
                if (!document.hidden && audio.paused && this.#mode === 'on') {
                    this.#player?.resume().catch(() => this.stop());
                }
            },
            { signal },
        );
        addEventListener(
            'online',
            () => {
                this.#stream?.hurry();
                this.#plain?.hurry();
            },
            { signal },
        );
    }

    /** Headphones pulled, a call, a key of the keyboard: the listener wants silence. A hidden page may be paused by
     * the browser alone; it goes on when it is seen again. */
    #paused() {
        const audio = this.#audio;
        if (this.#mode === 'on' && this.#player && audio.paused && !audio.ended && !document.hidden) {
            this.stop();
        }
    }

    /** @param {any} status @param {number} at */
    #told(status, at) {
        if (Number.isFinite(status?.t)) {
            this.#clock = { end: at, wall: status.t };
        }
        this.#handlers.status(status);
    }

    /** @param {import('./stream.js').Connection} connection @param {unknown} why */
    #connected(connection, why) {
        this.#connection = connection;
        this.why = why;
        if (why instanceof Waiting && why.delayed) {
            this.#wait(why.delayed);
        }
        if (connection === 'ended' && this.#mode === 'on') {
            this.#mode = 'ending';
            if (this.#ring.size === 0) {
                this.#finished();
                return;
            }
            this.#player?.finish();
            setTimeout(() => this.#finished(), TAIL_MS);
        }
        this.#handlers.changed();
    }

    #finished() {
        if (this.#mode === 'ending') {
            this.stop();
            this.#handlers.ended();
        }
    }

    /** @param {'off' | 'armed' | 'on' | 'unplayable'} mode */
    #set(mode) {
        this.#mode = mode;
        this.#handlers.changed();
    }
}
