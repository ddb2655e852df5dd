// The speaker's microphone: choosing it, watching its level.

import { Problem } from './api.js';

/** What a failed `getUserMedia` is called in the text tables. */
const FAILURES = new Map([
    ['NotAllowedError', 'microphone_denied'],
    ['SecurityError', 'microphone_denied'],
    ['NotFoundError', 'no_microphone'],
    ['OverconstrainedError', 'no_microphone'],
    ['NotReadableError', 'microphone_busy'],
    ['AbortError', 'microphone_busy'],
]);

/** Level of silence, dBFS: the bottom of the scale. */
export const SILENT_DBFS = -120;

export class Microphone {
    /** @type {MediaStream | null} */
    #stream = null;
    /** @type {AudioContext | null} */
    #context = null;
    /** @type {AnalyserNode | null} */
    #analyser = null;
    /** @type {MediaStreamAudioSourceNode | null} */
    #source = null;
    #samples = new Float32Array(2048);
    #gone;

    /** @param {() => void} gone The microphone in use was unplugged. */
    constructor(gone) {
        this.#gone = gone;
    }

    /** The track to send. */
    get track() {
        return this.#stream?.getAudioTracks()[0] ?? null;
    }

    /** Identity of the device in use. */
    get device() {
        return this.track?.getSettings().deviceId ?? '';
    }

    /**
     * Opens a microphone in place of the present one.
     * @param {{device?: string, raw: boolean}} wanted `raw`: without echo cancellation, noise suppression and gain
     *   control, which are for voices only and change music beyond recognition.
     * @returns {Promise<MediaStreamTrack>}
     * @throws {Problem}
     */
    async open({ device, raw }) {
        if (!navigator.mediaDevices) {
            throw new Problem({ type: 'microphone_insecure' });
        }
        /** @type {MediaStream} */
        let stream;
        try {
            stream = await navigator.mediaDevices.getUserMedia({
                audio: {
                    deviceId: device ? { exact: device } : undefined,
                    channelCount: 1,
                    echoCancellation: !raw,
                    noiseSuppression: !raw,
                    autoGainControl: !raw,
                },
            });
        } catch (error) {
            const { name, message } = /** @type {DOMException} */ (error);
            throw new Problem({ type: FAILURES.get(name) ?? 'no_microphone', detail: message });
        }
        this.#close();
        this.#stream = stream;
        const track = stream.getAudioTracks()[0];
        track.addEventListener('ended', () => this.#gone());
        this.#measure(stream);
        return track;
    }

    /** @returns {Promise<MediaDeviceInfo[]>} */
    async devices() {
        const all = await navigator.mediaDevices.enumerateDevices();
        return all.filter((device) => device.kind === 'audioinput' && device.deviceId !== '');
    }

    /** Level of the last 40 ms or so, dBFS (root of the mean square). */
    get level() {
        if (!this.#analyser) {
            return SILENT_DBFS;
        }
        this.#analyser.getFloatTimeDomainData(this.#samples);
        const power = this.#samples.reduce((sum, sample) => sum + sample * sample, 0) / this.#samples.length;
        return Math.max(SILENT_DBFS, 10 * Math.log10(power + 1e-12));
    }

    /** @param {MediaStream} stream */
    #measure(stream) {
        this.#context ??= new AudioContext();
        this.#analyser ??= this.#context.createAnalyser();
        this.#source?.disconnect();
        this.#source = this.#context.createMediaStreamSource(stream);
        this.#source.connect(this.#analyser);
        this.#context.resume().catch(() => {});
    }

    #close() {
        for (const track of this.#stream?.getTracks() ?? []) {
            track.stop();
        }
    }
}
