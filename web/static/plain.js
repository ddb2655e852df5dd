// Listening where Media Source Extensions are missing: the browser's own player on HLS or on an endless address.
//
// Later than the pushed stream and blind (no status inside), but it plays with the screen locked and on old phones.

import { Backoff, Nap } from './backoff.js';
import { Waiting } from './tickets.js';
/** @typedef {import('./tickets.js').Tickets} Tickets */

/** A player that neither plays nor says why for this long is started again. */
const STUCK_MS = 12000;

/** @typedef {{door: 'files' | 'push', name: string}} PlainSource Relative to a place. */

/**
 * What to give the browser's own player, best first.
 * @param {(type: string) => string} canPlay `canPlayType` of a media element.
 * @returns {PlainSource[]}
 */
export function plainSources(canPlay) {
    /** @type {PlainSource[]} */
    const sources = [];
    if (canPlay('application/vnd.apple.mpegurl')) {
        // Apple's players: MP3 goes on with the screen locked and in Lockdown Mode. Opus in their HLS is unproven.
        sources.push({ door: 'files', name: 'mp3-64.m3u8' });
    }
    if (canPlay('audio/mpeg')) {
        sources.push({ door: 'push', name: 'mp3-64.mp3' });
    }
    return sources;
}

export class PlainPlayer {
    #audio;
    #tickets;
    #sources;
    #handlers;
    #running = false;
    #nap = new Nap();
    #listeners = new AbortController();

    /**
     * @param {object} given
     * @param {HTMLAudioElement} given.audio
     * @param {Tickets} given.tickets
     * @param {PlainSource[]} given.sources One at least.
     * @param {{connection: (connection: import('./stream.js').Connection, why: unknown) => void}} given.handlers
     */
    constructor({ audio, tickets, sources, handlers }) {
        this.#audio = audio;
        this.#tickets = tickets;
        this.#sources = sources;
        this.#handlers = handlers;
    }

    /** To be called from the listener's own click: plays silence until there is something to hear. */
    start() {
        this.#audio.loop = true;
        this.#audio.src = URL.createObjectURL(new Blob([silence()], { type: 'audio/wav' }));
        return this.#audio.play();
    }

    connect() {
        if (!this.#running) {
            this.#running = true;
            this.#run();
        }
    }

    stop() {
        this.#running = false;
        this.#listeners.abort();
        this.#nap.wake();
        this.#audio.loop = false;
        this.#audio.pause();
        this.#audio.removeAttribute('src');
        this.#audio.load();
    }

    /** There may be a network again. */
    hurry() {
        this.#nap.wake();
    }

    async #run() {
        const backoff = new Backoff();
        this.#handlers.connection('connecting', null);
        let turn = 0;
        while (this.#running) {
            /** @type {unknown} */
            let why = null;
            let wait = 0;
            try {
                const place = await this.#tickets.current();
                const { door, name } = this.#sources[turn % this.#sources.length];
                let worked = false;
                await this.#play(new URL(name, place[door]).href, () => {
                    worked = true;
                    backoff.reset();
                });
                // What never played may never do; what did deserves another try.
                turn += Number(!worked);
            } catch (error) {
                why = error;
                wait = error instanceof Waiting ? error.seconds * 1000 : 0;
            }
            if (this.#running) {
                this.#handlers.connection(why instanceof Waiting ? 'waiting' : 'reconnecting', why);
                await this.#nap.sleep(Math.max(wait, backoff.next()));
            }
        }
    }

    /**
     * Plays an address until it ends, fails or gets stuck.
     * @param {string} address
     * @param {() => void} works
     */
    async #play(address, works) {
        const audio = this.#audio;
        this.#listeners = new AbortController();
        const { signal } = this.#listeners;
        audio.loop = false;
        audio.src = address;
        const over = new Promise((resolve) => {
            let last = performance.now();
            let position = 0;
            const watch = setInterval(() => {
                if (audio.currentTime !== position) {
                    position = audio.currentTime;
                    last = performance.now();
                } else if (performance.now() - last > STUCK_MS) {
                    resolve(null);
                }
            }, 1000);
            signal.addEventListener('abort', () => {
                clearInterval(watch);
                resolve(null);
            });
            audio.addEventListener('ended', resolve, { signal });
            audio.addEventListener('error', resolve, { signal });
            audio.addEventListener(
                'playing',
                () => {
                    works();
                    this.#handlers.connection('open', null);
                },
                { signal },
            );
        });
        audio.play().catch(() => {
            // Failures come as events; a refusal shows as silence and is met by the next click.
        });
        await over;
        this.#listeners.abort();
    }
}

/** One second of silence as a WAV file: 8 kHz, mono, 8 bit. */
function silence() {
    const samples = 8000;
    const bytes = new Uint8Array(44 + samples).fill(128, 44);
    const view = new DataView(bytes.buffer);
    const put = (/** @type {number} */ at, /** @type {string} */ text) => {
        [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
    };
    put(0, 'RIFF');
    view.setUint32(4, 36 + samples, true);
    put(8, 'WAVEfmt ');
    view.setUint32(16, 16, true);
    view.setUint16(20, 1, true);
    view.setUint16(22, 1, true);
    view.setUint32(24, 8000, true);
    view.setUint32(28, 8000, true);
    view.setUint16(32, 1, true);
    view.setUint16(34, 8, true);
    put(36, 'data');
    view.setUint32(40, samples, true);
    return bytes;
}
