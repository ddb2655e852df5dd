// The recording, from the files door. Seconds count from the moment the show went live.
//
// Its parts are the very bytes that were aired, with times counted from doors. Some players show those, others begin
// at nought: so the page has a position of its own, and asks the element where its recording begins.

import { Backoff } from './backoff.js';

/** Rounds through all sources before it gives up; a recording is there a second after the end. */
const ROUNDS = 6;

/** @typedef {'preparing' | 'ready' | 'failed'} ReplayState */

/**
 * Addresses of a recording.
 * @param {string} files The files door, ending in `/`.
 * @param {string} slug
 */
export function recordingAddresses(files, slug) {
    const at = (/** @type {string} */ name) => new URL(`e/${slug}/${name}`, files).href;
    return {
        best: at('recording.opus-48.mp4'),
        ogg: at('recording.ogg'),
        mp3: at('recording.mp3'),
    };
}

/** Plays the best of a recording that this browser takes. */
export class Replay {
    #audio;
    #changed;
    /** @type {{address: string, cors: boolean}[]} */
    #sources;
    #attempt = 0;
    #backoff = new Backoff();
    /** Where the recording begins on the element's own scale, seconds. */
    #origin = 0;
    /** Where to begin, seconds from the beginning. */
    #from;

    /** @type {ReplayState} */
    state = 'preparing';

    /**
     * @param {object} given
     * @param {HTMLAudioElement} given.audio
     * @param {{best: string, mp3: string}} given.addresses
     * @param {number} given.from Where to begin, seconds from `live_at`.
     * @param {() => void} given.changed
     */
    constructor({ audio, addresses, from, changed }) {
        this.#audio = audio;
        this.#changed = changed;
        this.#from = from;
        const opus = audio.canPlayType('audio/mp4; codecs="opus"') !== '';
        const each = opus ? [addresses.best, addresses.mp3] : [addresses.mp3];
        // First so that the page may look into the sound, then whatever door there is.
        this.#sources = [true, false].flatMap((cors) => each.map((address) => ({ address, cors })));
        audio.addEventListener('error', () => this.#failed());
        audio.addEventListener('loadeddata', () => this.#loaded());
        for (const name of ['play', 'pause', 'timeupdate', 'durationchange', 'seeking', 'ended']) {
            audio.addEventListener(name, changed);
        }
        audio.preload = 'metadata';
        this.#load();
    }

    get playing() {
        return !this.#audio.paused;
    }

    /** Seconds from the beginning. */
    get position() {
        return Math.max(0, this.#audio.currentTime - this.#origin);
    }

    /** Seconds. */
    get length() {
        const end = this.#audio.duration;
        return Number.isFinite(end) ? Math.max(0, end - this.#origin) : 0;
    }

    /** @param {number} seconds From the beginning. */
    seek(seconds) {
        this.#audio.currentTime = this.#origin + Math.min(Math.max(0, seconds), Math.max(0, this.length - 0.1));
        this.#changed();
    }

    /** Plays or pauses; to be called from the listener's own click. */
    async toggle() {
        if (this.playing) {
            this.#audio.pause();
        } else {
            await this.#audio.play().catch(() => {
                // Failures come as events.
            });
        }
    }

    #load() {
        const { address, cors } = this.#sources[this.#attempt % this.#sources.length];
        this.#audio.crossOrigin = cors ? 'anonymous' : null;
        this.#audio.src = address;
        this.#audio.load();
    }

    #loaded() {
        // Nothing was played or sought yet: this is where it begins.
        this.#origin = this.#audio.currentTime;
        this.state = 'ready';
        if (this.#from > 0) {
            this.seek(this.#from);
            this.#from = 0;
        }
        this.#changed();
    }

    #failed() {
        // What was heard goes on where it broke.
        if (this.state === 'ready') {
            this.#from = this.position;
        }
        this.#attempt++;
        const round = this.#attempt % this.#sources.length === 0;
        if (this.#attempt >= this.#sources.length * ROUNDS) {
            this.state = 'failed';
        } else {
            this.state = 'preparing';
            setTimeout(() => this.#load(), round ? this.#backoff.next() : 0);
        }
        this.#changed();
    }
}
