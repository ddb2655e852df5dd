// A seat's connection to the stage: WebRTC, offered over WHIP (RFC 9725), with the mix of the others coming back.
//
// The stage sends sound all the time, be it silence. Half a second without a packet means that the connection is
// broken: then a second one is offered beside it, with the same microphone, and whichever carries sound first stays.
// So a short outage is over as soon as the network is back, and a lost server as soon as it has restarted.

import { Problem, send } from './api.js';
import { Backoff, Nap, SilenceWatch, jittered } from './backoff.js';

/** Silence after which a connection counts as broken, ms. */
const SILENCE_MS = 500;
/** How often packets are counted. */
const COUNT_MS = 100;
/** How long the stage may take to answer an offer: lost packets make a fresh request the faster way. */
const ANSWER_MS = 1500;
/** How long a new connection may take until sound comes. */
const FIRST_SOUND_MS = 4000;
/** Longest pause between two offers: short, for a stage has few speakers, and they are to be back within 3 s. */
const PAUSE_MS_MAX = 1000;
/** Bits a second sent at most: plenty for one voice, or one instrument. */
const BITRATE_MAX = 96000;

/**
 * @typedef {'off' | 'connecting' | 'on' | 'reconnecting' | 'refused'} Phase
 *
 * @typedef {object} WhipCounters
 * @property {number} offers
 * @property {number} silences Times the sound stopped.
 * @property {number} revivals … and came back over the old connection.
 * @property {number} failures Offers that led nowhere.
 */

/** One connection. */
class Session {
    #bearer;
    /** @type {string | null} Address that ends it. */
    #resource = null;
    /** @type {RTCRtpTransceiver} */
    #transceiver;
    #closed = false;

    /** @type {RTCPeerConnection} */
    pc;

    /** @param {MediaStreamTrack} track @param {string} bearer */
    constructor(track, bearer) {
        this.#bearer = bearer;
        this.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
        this.#transceiver = this.pc.addTransceiver(track, { direction: 'sendrecv' });
        const { receiver } = /** @type {{receiver: any}} */ (this.#transceiver);
        // Hear the others as early as possible: the two names of one wish.
        receiver.jitterBufferTarget = 0;
        receiver.playoutDelayHint = 0;
    }

    /**
     * Offers, and takes the answer.
     * @param {string} address
     * @throws {Problem}
     */
    async offer(address) {
        await this.pc.setLocalDescription();
        // The stage needs no candidates of ours: it answers wherever our first packet comes from.
        const response = await send(address, {
            method: 'POST',
            bearer: this.#bearer,
            type: 'application/sdp',
            body: this.pc.localDescription?.sdp ?? '',
            timeout: ANSWER_MS,
        });
        const resource = response.headers.get('location');
        this.#resource = resource && new URL(resource, new URL(address, location.href)).href;
        const sdp = await response.text();
        if (this.#closed) {
            this.#end();
            return;
        }
        await this.pc.setRemoteDescription({ type: 'answer', sdp });
        const { sender } = this.#transceiver;
        const parameters = sender.getParameters();
        for (const encoding of parameters.encodings ?? []) {
            encoding.maxBitrate = BITRATE_MAX;
            encoding.networkPriority = 'high';
        }
        await sender.setParameters(parameters).catch(() => {
            // Wishes: not every browser grants them.
        });
    }

    /** What comes from the stage. */
    get remote() {
        return this.#transceiver.receiver.track;
    }

    /** Packets received so far. */
    async packets() {
        let packets = 0;
        for (const stats of (await this.pc.getStats()).values()) {
            if (stats.type === 'inbound-rtp') {
                packets += stats.packetsReceived;
            }
        }
        return packets;
    }

    get failed() {
        return this.pc.connectionState === 'failed' || this.pc.connectionState === 'closed';
    }

    /** @param {MediaStreamTrack} track */
    async replaceTrack(track) {
        await this.#transceiver.sender.replaceTrack(track);
    }

    /** Ends it, and tells the stage so. */
    close() {
        if (!this.#closed) {
            this.#closed = true;
            this.pc.close();
            this.#end();
        }
    }

    #end() {
        if (this.#resource) {
            const options = { method: 'DELETE', bearer: this.#bearer, keepalive: true };
            send(this.#resource, options).catch(() => {
                // It notices by itself.
            });
            this.#resource = null;
        }
    }
}

export class Whip {
    #address;
    #bearer;
    #remote;
    #changed;
    /** @type {MediaStreamTrack | null} */
    #track = null;
    /** @type {Session | null} The one that is heard. */
    #session = null;
    /** @type {Session | null} The one that is tried. */
    #candidate = null;
    #running = false;
    #nap = new Nap();

    /** @type {Phase} */
    phase = 'off';
    /** Why, if it is refused or reconnecting. @type {unknown} */
    why = null;
    /** @type {WhipCounters} */
    counters = { offers: 0, silences: 0, revivals: 0, failures: 0 };

    /**
     * @param {object} given
     * @param {string} given.address
     * @param {string} given.bearer The invitation.
     * @param {HTMLAudioElement} given.remote Plays what comes back.
     * @param {() => void} given.changed
     */
    constructor({ address, bearer, remote, changed }) {
        this.#address = address;
        this.#bearer = bearer;
        this.#remote = remote;
        this.#changed = changed;
    }

    /** The connection in use, for tests. */
    get pc() {
        return this.#session?.pc ?? this.#candidate?.pc ?? null;
    }

    /** @param {MediaStreamTrack} track */
    join(track) {
        this.#track = track;
        if (!this.#running) {
            this.#running = true;
            this.#run();
        }
    }

    /**
     * Goes on with another microphone; nobody hears a break.
     * @param {MediaStreamTrack} track
     */
    async replaceTrack(track) {
        this.#track = track;
        await this.#session?.replaceTrack(track);
    }

    leave() {
        this.#running = false;
        this.#nap.wake();
        this.#session?.close();
        this.#candidate?.close();
        this.#session = null;
        this.#candidate = null;
        this.#remote.srcObject = null;
        this.#set('off', null);
    }

    /** There may be a network again. */
    hurry() {
        this.#nap.wake();
    }

    async #run() {
        const backoff = new Backoff({ max: PAUSE_MS_MAX });
        this.#set('connecting', null);
        while (this.#running) {
            const session = await this.#established(backoff);
            if (!session || !this.#running) {
                return;
            }
            backoff.reset();
            this.#use(session);
            await this.#untilSilent(session);
            if (this.#running) {
                this.counters.silences++;
                this.#set('reconnecting', null);
            }
        }
    }

    /**
     * Offers until a connection carries sound, a new one or the broken one again.
     * @param {Backoff} backoff
     * @returns {Promise<Session | null>} Nothing if the speaker left or was refused.
     */
    async #established(backoff) {
        const old = this.#session;
        const before = old ? await old.packets() : 0;
        const isBack = async () => {
            const back = old !== null && !old.failed && (await old.packets()) > before;
            this.counters.revivals += Number(back);
            return back;
        };
        while (this.#running) {
            try {
                return (await this.#attempt(isBack)) ?? old;
            } catch (error) {
                this.counters.failures++;
                if (isFinal(error, old !== null)) {
                    this.leave();
                    this.#set('refused', error);
                    return null;
                }
                this.#set(old ? 'reconnecting' : 'connecting', error);
                const until = performance.now() + Math.max(pauseOf(error), backoff.next());
                let left = until - performance.now();
                while (this.#running && left > 0) {
                    if (await isBack()) {
                        return old;
                    }
                    const woken = await this.#nap.sleep(Math.min(COUNT_MS, left));
                    left = woken ? 0 : until - performance.now();
                }
            }
        }
        return null;
    }

    /**
     * Offers one connection beside the broken one, if there is one.
     * @param {() => Promise<boolean>} isBack Whether the broken one works again.
     * @returns {Promise<Session | null>} The new one, carrying sound; nothing if the old one is back or the speaker left.
     */
    async #attempt(isBack) {
        const track = this.#track;
        if (!track) {
            return null;
        }
        this.counters.offers++;
        const candidate = new Session(track, this.#bearer);
        this.#candidate = candidate;
        /** @type {unknown} */
        let failure = null;
        candidate.offer(this.#address).catch((error) => {
            failure = error;
        });
        const until = performance.now() + ANSWER_MS + FIRST_SOUND_MS;
        let kept = false;
        try {
            while (this.#running) {
                if (failure !== null) {
                    throw failure;
                }
                if (candidate.failed || performance.now() > until) {
                    throw new Problem({ type: 'network', detail: 'no sound over the new connection' });
                }
                if ((await candidate.packets()) > 0) {
                    kept = true;
                    return candidate;
                }
                if (await isBack()) {
                    return null;
                }
                await this.#nap.sleep(COUNT_MS / 2);
            }
            return null;
        } finally {
            this.#candidate = null;
            if (!kept) {
                // Both would take both places of the seat.
                candidate.close();
            }
        }
    }

    /** @param {Session} session */
    #use(session) {
        const old = this.#session;
        this.#session = session;
        if (old !== session) {
            old?.close();
            this.#remote.srcObject = new MediaStream([session.remote]);
            this.#remote.play().catch((error) => console.warn('minassa: not heard', error));
            if (this.#track) {
                // It may have been changed meanwhile.
                session.replaceTrack(this.#track).catch(() => {});
            }
        }
        this.#set('on', null);
    }

    /** @param {Session} session Returns when nothing comes any more. */
    async #untilSilent(session) {
        const watch = new SilenceWatch(SILENCE_MS);
        while (this.#running && !session.failed && !watch.sample(await session.packets(), performance.now())) {
            await this.#nap.sleep(COUNT_MS);
        }
    }

    /** @param {Phase} phase @param {unknown} why */
    #set(phase, why) {
        this.phase = phase;
        this.why = why;
        this.#changed();
    }
}

/**
 * @param {unknown} error
 * @param {boolean} wasIn Whether this seat was connected before.
 * @returns {boolean} Whether trying again is of no use.
 */
function isFinal(error, wasIn) {
    // Whoever was in already may find a server that is still starting; a lost invitation does not come back.
    const final = wasIn ? [401, 403] : [400, 401, 403, 404, 415, 422];
    // With a time to come again it is no refusal: the stage has not heard of a new invitation yet.
    return error instanceof Problem && final.includes(error.status) && error.retryAfter === null;
}

/** @param {unknown} error @returns {number} ms that the stage asked us to wait. */
function pauseOf(error) {
    const seconds = error instanceof Problem ? error.retryAfter : null;
    return seconds === null ? 0 : jittered(seconds * 1000);
}
