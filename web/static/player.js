// Plays parts through Media Source Extensions, near the present.
//
// Driven by what happens (a part came, an append ended, playing stopped), not by timers, which hidden pages lose; one
// slow timer is the second line. What it decides:
//
//        oldest kept   playing          newest received
//   ─────────┼───────────┼───────────────────┼────▶ media time, seconds since doors
//            │  trimmed  │◀──── delay ──────▶│
//
// · It begins `lead` behind the newest part, and after running dry waits until it has that much again.
// · A hole in what is buffered stops a player for good, so it is jumped as soon as something lies behind it.
// · A delay over `DELAY_MAX` is jumped too. A smaller surplus (after a reconnection, nothing of which is left out)
//   is made up by playing a little faster.
// · A full buffer is trimmed, a broken one is built anew from the ring.

/** @typedef {import('./boxes.js').Part} Part */
/** @typedef {import('./ring.js').Ring} Ring */

/** Both spellings: Safari knows the first only, older Chrome the second. */
const TYPES = ['audio/mp4; codecs="Opus"', 'audio/mp4; codecs="opus"'];

/** Distance to the newest part at the start, seconds, for parts that are flushed one by one. */
const LEAD = 0.85;
/** Seconds that every further part of a flush adds to it. */
const LEAD_PER_PART = 0.48;
/** Delay that is jumped, seconds, beyond what the tier needs. */
const DELAY_MAX = 5;
/** Unplayed seconds that were never needed lately: more than SURPLUS is made up until SURPLUS_END. */
const SURPLUS = 1.5;
const SURPLUS_END = 0.8;
const FASTER = 1.06;
/** For that many seconds the smallest reserve is watched. */
const LATELY = 8;
/** How long a hole is left open at its edge for a part that was asked for again, ms: late words are better than none. */
const AWAIT_MS = 400;
/** Played seconds kept in the buffer, and beyond which it is trimmed to that. */
const KEEP = 20;
const TRIM = 40;
/** More failures than that within a minute, and another way of playing is called for. */
const REBUILDS_MAX = 5;

/**
 * @typedef {object} PlayerCounters
 * @property {number} parts_appended
 * @property {number} jumps Holes jumped.
 * @property {number} jumped_ms Media time left out by jumps.
 * @property {number} live_jumps Jumps to the present because of too much delay.
 * @property {number} stalls Times it ran dry.
 * @property {number} rebuilds
 * @property {number} quota Times the buffer was full.
 */

/** @returns {PlayerCounters} */
export function playerCounters() {
    return { parts_appended: 0, jumps: 0, jumped_ms: 0, live_jumps: 0, stalls: 0, rebuilds: 0, quota: 0 };
}

/**
 * @typedef {{source: any, type: string, managed: boolean}} Support A constructor of MediaSource, and the type to use.
 */

/**
 * @param {boolean} managed Whether ManagedMediaSource may be used where it is all there is (iPhones). Nobody could
 *   try it there, so it is asked for.
 * @returns {Support | null}
 */
export function support(managed = false) {
    const scope = /** @type {any} */ (globalThis);
    const sources = [{ source: scope.MediaSource, managed: false }];
    if (managed) {
        sources.push({ source: scope.ManagedMediaSource, managed: true });
    }
    for (const candidate of sources) {
        const type = TYPES.find((type) => candidate.source?.isTypeSupported?.(type));
        if (type) {
            return { ...candidate, type };
        }
    }
    return null;
}

/**
 * Finds what to do where nothing is buffered. Pure.
 * @param {{start: number, end: number}[]} ranges What is buffered, in order.
 * @param {number} at The present position.
 * @returns {{ahead: number, next: number | null}} Seconds that can be played from there, and where the range after
 *   them begins.
 */
export function outlook(ranges, at) {
    for (const { start, end } of ranges) {
        if (at < start) {
            return { ahead: 0, next: start };
        }
        if (at < end) {
            const next = ranges.find((range) => range.start >= end);
            return { ahead: end - at, next: next ? next.start : null };
        }
    }
    return { ahead: 0, next: null };
}

/**
 * @typedef {object} Reserve Distance to the newest part, seconds.
 * @property {number} lead At the start, and after running dry.
 * @property {number} most Beyond it, it is jumped.
 */

export class Player {
    #audio;
    #ring;
    #support;
    #failed;
    #awaited;
    #now;
    /** @type {any} The MediaSource in use. */
    #source = null;
    /** @type {any} Its buffer. */
    #buffer = null;
    /** @type {Uint8Array | null} */
    #init = null;
    #initAppended = false;
    /** @type {Part[]} To be appended, in this order. */
    #pending = [];
    /** @type {Part | null} Being appended. */
    #appending = null;
    /** Whether the position was chosen. */
    #placed = false;
    /** Whether it ran dry and gathers a reserve before going on. */
    #dry = false;
    #ending = false;
    /** Since when it stands before a hole, ms. @type {number | null} */
    #beforeHole = null;
    #running = false;
    /** @type {Reserve} */
    #reserve = { lead: LEAD, most: DELAY_MAX };
    /** Smallest reserve of the present stretch, and when the stretch began. */
    #least = Infinity;
    #leastSince = 0;
    /** @type {number[]} When it was built anew lately. */
    #rebuilt = [];
    /** @type {ReturnType<typeof setInterval> | undefined} */
    #timer;
    /** @type {AbortController | null} Ends all listeners at once. */
    #listeners = null;

    /** @type {PlayerCounters} */
    counters;

    /**
     * @param {object} given
     * @param {HTMLAudioElement} given.audio
     * @param {Ring} given.ring
     * @param {Support} given.support
     * @param {() => void} given.failed It cannot go on; another way must be found.
     * @param {() => boolean} [given.awaited] Whether missing parts are on their way.
     * @param {PlayerCounters} [given.counters] To go on counting where an earlier player left off.
     * @param {() => number} [given.now] ms, monotonic.
     */
    constructor({ audio, ring, support, failed, awaited, counters, now }) {
        this.#audio = audio;
        this.#ring = ring;
        this.#support = support;
        this.#failed = failed;
        this.#awaited = awaited ?? (() => false);
        this.#now = now ?? (() => performance.now());
        this.counters = counters ?? playerCounters();
    }

    /** Begins; to be called from the listener's own click. Sound comes with the first parts. */
    start() {
        this.#running = true;
        const audio = this.#audio;
        const listeners = new AbortController();
        this.#listeners = listeners;
        const on = (/** @type {string} */ name, /** @type {() => void} */ then) =>
            audio.addEventListener(name, then, { signal: listeners.signal });
        on('waiting', () => this.#starving());
        on('timeupdate', () => this.#step());
        on('error', () => {
            // The error of a source that was replaced in the meantime is history.
            if (audio.error) {
                this.#rebuild('the media element failed');
            }
        });
        this.#timer = setInterval(() => this.#step(), 250);
        this.#build();
        return this.#play();
    }

    /** Ends playing and lets go of everything. */
    stop() {
        this.#running = false;
        clearInterval(this.#timer);
        this.#listeners?.abort();
        this.#dropSource();
        this.#audio.playbackRate = 1;
        this.#audio.pause();
        this.#audio.removeAttribute('src');
        this.#audio.load();
    }

    /** No further parts come: plays what is there, then the element fires `ended`. */
    finish() {
        this.#ending = true;
        this.#pump();
    }

    /** Something may be different: looks again. */
    nudge() {
        this.#step();
    }

    /** Goes on after the element was paused from outside, at the present. */
    resume() {
        this.#step();
        return this.#play();
    }

    /** @param {number} tier Parts between two flushes. */
    setTier(tier) {
        const more = (tier - 1) * LEAD_PER_PART;
        this.#reserve = { lead: LEAD + more, most: DELAY_MAX + more };
    }

    /** @param {Reserve} reserve For parts that come in greater lumps than any tier's. */
    setReserve(reserve) {
        this.#reserve = reserve;
    }

    /** @param {Uint8Array} bytes */
    init(bytes) {
        const same = this.#init?.length === bytes.length && this.#init.every((byte, at) => byte === bytes[at]);
        if (!same) {
            this.#init = bytes;
            this.#initAppended = false;
        }
        this.#pump();
    }

    /** @param {Part} part One that is new in the ring; a late one may be older than the last. */
    part(part) {
        const newest = this.#ring.newest;
        if (this.#placed && newest && newest.end + 2 * KEEP < this.#audio.currentTime) {
            this.#rebuild('the timeline began anew');
            return;
        }
        if (!this.#placed || part.end > this.#audio.currentTime) {
            this.#pending.push(part);
        }
        this.#note();
        this.#step();
        this.#pump();
    }

    /** Seconds between what is heard and the newest part received. */
    get delay() {
        const newest = this.#ring.newest;
        return newest && this.#placed ? newest.end - this.#audio.currentTime : 0;
    }

    /** Whether sound comes out now. */
    get audible() {
        return this.#placed && !this.#dry && !this.#audio.paused && this.#audio.readyState >= 3;
    }

    get #lead() {
        return this.#reserve.lead;
    }

    async #play() {
        try {
            await this.#audio.play();
        } catch (error) {
            // AbortError: a new source came in between. Anything else is the browser's refusal, which the page sees.
            if (/** @type {any} */ (error).name === 'NotAllowedError') {
                throw error;
            }
        }
    }

    // Building.

    #build() {
        const source = new this.#support.source();
        this.#source = source;
        this.#buffer = null;
        this.#initAppended = false;
        this.#placed = false;
        this.#dry = false;
        if (this.#support.managed) {
            // Safari opens a ManagedMediaSource only for elements that cannot be sent to another device.
            this.#audio.disableRemotePlayback = true;
        }
        const address = URL.createObjectURL(source);
        source.addEventListener('sourceopen', () => {
            URL.revokeObjectURL(address);
            if (this.#source !== source || this.#buffer) {
                return;
            }
            const buffer = source.addSourceBuffer(this.#support.type);
            buffer.addEventListener('updateend', () => {
                if (this.#buffer === buffer) {
                    this.#appended();
                }
            });
            buffer.addEventListener('error', () => {
                if (this.#buffer === buffer) {
                    this.#rebuild('the buffer failed', this.#appending);
                }
            });
            this.#buffer = buffer;
            this.#pump();
        });
        this.#audio.src = address;
    }

    #dropSource() {
        this.#source = null;
        this.#buffer = null;
        this.#appending = null;
        this.#pending = [];
    }

    /**
     * Something broke: a new source, filled from the ring.
     * @param {string} why
     * @param {Part | null} [without] The part that cannot be played, if it is known.
     */
    #rebuild(why, without = null) {
        if (!this.#running) {
            return;
        }
        const now = this.#now();
        this.#rebuilt = this.#rebuilt.filter((then) => now - then < 60000);
        this.#rebuilt.push(now);
        this.counters.rebuilds++;
        if (this.#rebuilt.length > REBUILDS_MAX) {
            this.#failed();
            return;
        }
        console.warn(`minassa: building the player anew: ${why}`, this.#audio.error);
        const newest = this.#ring.newest;
        const from = newest ? newest.end - this.#lead - 2 * LEAD_PER_PART : 0;
        this.#dropSource();
        this.#pending = this.#ring.after(from).filter((part) => part !== without);
        this.#build();
        this.#play().catch(() => this.#failed());
    }

    // Filling.

    /** Appends the next thing, if it is time. */
    #pump() {
        const buffer = this.#buffer;
        if (!buffer || buffer.updating || this.#source?.readyState !== 'open') {
            return;
        }
        if (this.#dry && !this.#ending && this.delay < this.#lead) {
            return;
        }
        try {
            if (!this.#initAppended) {
                if (this.#init) {
                    this.#initAppended = true;
                    buffer.appendBuffer(this.#init);
                }
                return;
            }
            if (this.#trim(buffer)) {
                return;
            }
            const part = this.#pending.shift();
            if (part) {
                this.#appending = part;
                buffer.appendBuffer(part.bytes);
                return;
            }
            if (this.#ending) {
                this.#source.endOfStream();
            }
        } catch (error) {
            this.#refused(error);
        }
    }

    #appended() {
        if (this.#appending) {
            this.counters.parts_appended++;
            this.#appending = null;
        }
        this.#pump();
        this.#step();
    }

    /**
     * @param {any} buffer
     * @returns {boolean} Whether it has begun to remove what was played.
     */
    #trim(buffer) {
        const at = this.#audio.currentTime;
        if (!this.#placed || buffer.buffered.length === 0 || at - buffer.buffered.start(0) < TRIM) {
            return false;
        }
        buffer.remove(0, at - KEEP);
        return true;
    }

    /** @param {any} error What appendBuffer threw. */
    #refused(error) {
        const part = this.#appending;
        this.#appending = null;
        if (error.name !== 'QuotaExceededError') {
            this.#rebuild(`append: ${error.name}`, part);
            return;
        }
        this.counters.quota++;
        const at = this.#audio.currentTime;
        const buffer = this.#buffer;
        if (part) {
            this.#pending.unshift(part);
        }
        if (buffer.buffered.length > 0 && buffer.buffered.start(0) < at - 2) {
            buffer.remove(0, at - 1);
        }
        // Otherwise nothing can go: it waits until more was played (timeupdate).
    }

    // Playing.

    /** Looks where playing stands and sets it right. */
    #step() {
        const newest = this.#ring.newest;
        if (!this.#running || !this.#buffer || !newest) {
            return;
        }
        if (!this.#placed) {
            this.#place();
            return;
        }
        const audio = this.#audio;
        if (audio.seeking || this.#ending) {
            this.#pump();
            return;
        }
        if (this.delay > this.#reserve.most && this.#seekable(newest.end - this.#lead)) {
            this.counters.live_jumps++;
            this.#jump(newest.end - this.#lead);
            return;
        }
        const { ahead, next } = outlook(this.#ranges(), audio.currentTime);
        if (next !== null && (ahead < 0.01 || (ahead < 0.25 && audio.readyState < 3))) {
            this.#beforeHole ??= this.#now();
            if (!this.#awaited() || this.#now() - this.#beforeHole > AWAIT_MS) {
                this.counters.jumps++;
                this.#jump(next + 0.001);
            }
            return;
        }
        this.#beforeHole = null;
        if (this.#dry && ahead >= this.#lead / 2) {
            this.#dry = false;
            this.#freshStretch();
        }
        this.#pump();
    }

    /** Chooses the position, once all that has come is in the buffer. */
    #place() {
        const newest = /** @type {Part} */ (this.#ring.newest);
        const ranges = this.#ranges();
        if (ranges.length === 0 || this.#pending.length > 0 || this.#buffer.updating) {
            return;
        }
        const { start, end } = ranges[ranges.length - 1];
        if (end - start < this.#lead && !this.#ending) {
            return;
        }
        this.#placed = true;
        this.#freshStretch();
        this.#audio.currentTime = Math.max(start + 0.001, newest.end - this.#lead);
    }

    /** @param {number} to */
    #jump(to) {
        this.counters.jumped_ms += Math.round((to - this.#audio.currentTime) * 1000);
        this.#audio.currentTime = to;
        this.#dry = false;
        this.#beforeHole = null;
        this.#freshStretch();
    }

    /** The element has nothing more to play. */
    #starving() {
        if (!this.#placed || this.#audio.seeking || this.#ending) {
            return;
        }
        const { ahead, next } = outlook(this.#ranges(), this.#audio.currentTime);
        if (next === null && ahead < 0.25 && !this.#dry) {
            this.counters.stalls++;
            this.#dry = true;
        }
        this.#step();
    }

    /** Takes note of the reserve before a new part adds to it, and makes up for what is never used. */
    #note() {
        if (!this.#placed || this.#dry || this.#audio.paused) {
            return;
        }
        this.#least = Math.min(this.#least, outlook(this.#ranges(), this.#audio.currentTime).ahead);
        const now = this.#now();
        const faster = this.#audio.playbackRate > 1;
        if (faster && this.#least < SURPLUS_END) {
            this.#freshStretch();
        } else if (now - this.#leastSince > LATELY * 1000) {
            // What comes in lumps has more in hand most of the time, and needs it in the end.
            if (!faster && this.#least > SURPLUS && this.#reserve.most - this.#reserve.lead <= DELAY_MAX) {
                this.#audio.playbackRate = FASTER;
            }
            this.#least = Infinity;
            this.#leastSince = now;
        }
    }

    #freshStretch() {
        this.#audio.playbackRate = 1;
        this.#least = Infinity;
        this.#leastSince = this.#now();
    }

    #ranges() {
        const buffered = this.#buffer ? this.#buffer.buffered : this.#audio.buffered;
        return Array.from({ length: buffered.length }, (_, at) => ({
            start: buffered.start(at),
            end: buffered.end(at),
        }));
    }

    /** @param {number} time */
    #seekable(time) {
        return this.#ranges().some(({ start, end }) => time >= start && time < end);
    }
}
