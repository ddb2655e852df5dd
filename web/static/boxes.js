// The pushed stream as bytes: MP4 boxes in, whole parts and events out.
//
// A stream is [ftyp moov] once, then parts, each [uuid…] moof mdat, with emsg boxes between parts. Nothing here knows
// about the network or about playing; damaged input throws a FormatError, after which the splitter is of no use.
// Boxes: ISO/IEC 14496-12; emsg: ISO/IEC 23009-1 §5.10.3.3.

/** Samples a second, of tfdt and of every time here. */
export const TIMESCALE = 48000;
/** Samples of an Opus frame of ours, 20 ms. */
const FRAME_SAMPLES = 960;
/** Largest box believed in, bytes: a part has a few thousand. */
export const BOX_BYTES_MAX = 1 << 20;

/** Bytes that are no stream of ours. */
export class FormatError extends Error {}

/**
 * @typedef {object} Part One part as sent.
 * @property {number} number Counted from doors.
 * @property {number} start Media time of its first sample, seconds since doors.
 * @property {number} end Media time after its last sample, seconds.
 * @property {Uint8Array} bytes Its boxes, exactly as sent.
 *
 * @typedef {object} StreamEvent
 * @property {string} scheme
 * @property {string} value
 * @property {number} id
 * @property {number} time Media time that it is about, seconds.
 * @property {Uint8Array} message
 *
 * @typedef {{kind: 'init', bytes: Uint8Array} | {kind: 'event', event: StreamEvent} | {kind: 'part', part: Part}} Item
 */

/** Cuts a stream that arrives in arbitrary pieces into its items. Holds at most one part's bytes. */
export class StreamSplitter {
    /** @type {Uint8Array} Bytes of a box that is not whole yet. */
    #rest = new Uint8Array(0);
    /** @type {Uint8Array[]} Whole boxes of an item that is not. */
    #boxes = [];
    #held = 0;
    /** @type {'lead' | 'ftyp' | 'moof'} The last box of #boxes that matters. */
    #after = 'lead';

    /**
     * @param {Uint8Array} chunk What was read, in order. Not kept: the caller may reuse it.
     * @returns {Item[]} The items that it completes, in order.
     */
    push(chunk) {
        let bytes = chunk;
        if (this.#rest.length > 0) {
            bytes = concat([this.#rest, chunk]);
        }
        /** @type {Item[]} */
        const items = [];
        let at = 0;
        for (;;) {
            const size = boxSize(bytes, at);
            if (size === null || at + size > bytes.length) {
                break;
            }
            const item = this.#box(bytes.slice(at, at + size));
            if (item) {
                items.push(item);
            }
            at += size;
        }
        this.#rest = bytes.slice(at);
        return items;
    }

    /**
     * @param {Uint8Array} box
     * @returns {Item | null}
     */
    #box(box) {
        const type = fourcc(box, 4);
        if (type === 'emsg') {
            const event = parseEvent(box);
            return event && { kind: 'event', event };
        }
        this.#boxes.push(box);
        this.#held += box.length;
        if (this.#held > BOX_BYTES_MAX) {
            throw new FormatError('an item without an end');
        }
        const expected = { moov: 'ftyp', mdat: 'moof', ftyp: 'lead', moof: 'lead' }[type];
        if (expected && expected !== this.#after) {
            throw new FormatError(`${type} after ${this.#after}`);
        }
        if (type === 'ftyp' || type === 'moof') {
            this.#after = type;
        }
        if (type === 'moov' || type === 'mdat') {
            const bytes = concat(this.#boxes);
            this.#boxes = [];
            this.#held = 0;
            this.#after = 'lead';
            return type === 'moov' ? { kind: 'init', bytes } : { kind: 'part', part: parsePart(bytes) };
        }
        return null;
    }
}

/**
 * Reads the number and the times of a part: `mfhd` (number + 1), `tfdt`, and the frames counted in `trun`.
 * @param {Uint8Array} bytes The boxes of one part.
 * @returns {Part}
 */
export function parsePart(bytes) {
    const moof = children(bytes, 0, bytes.length).find((box) => box.type === 'moof');
    if (!moof) {
        throw new FormatError('a part without moof');
    }
    const inMoof = children(bytes, moof.start, moof.end);
    const traf = inMoof.find((box) => box.type === 'traf');
    const inTraf = traf ? children(bytes, traf.start, traf.end) : [];
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const mfhd = full(inMoof, 'mfhd', 8);
    const tfdt = full(inTraf, 'tfdt', 8);
    const trun = full(inTraf, 'trun', 8);
    const wide = view.getUint8(tfdt.start) === 1;
    if (wide && tfdt.end - tfdt.start < 12) {
        throw new FormatError('a short tfdt');
    }
    const decodeTime = wide ? Number(view.getBigUint64(tfdt.start + 4)) : view.getUint32(tfdt.start + 4);
    const frames = view.getUint32(trun.start + 4);
    const sequence = view.getUint32(mfhd.start + 4);
    if (!Number.isSafeInteger(decodeTime) || frames === 0 || frames > 10000 || sequence === 0) {
        throw new FormatError('a part with impossible numbers');
    }
    const start = decodeTime / TIMESCALE;
    return { number: sequence - 1, start, end: start + (frames * FRAME_SAMPLES) / TIMESCALE, bytes };
}

/**
 * @param {Uint8Array} box An emsg box.
 * @returns {StreamEvent | null} Nothing for versions other than 1, which are not ours.
 */
function parseEvent(box) {
    if (box.length < 8 + 24 || box[8] !== 1) {
        return null;
    }
    const view = new DataView(box.buffer, box.byteOffset, box.byteLength);
    const schemeAt = 8 + 4 + 4 + 8 + 4 + 4;
    const schemeEnd = box.indexOf(0, schemeAt);
    const valueEnd = schemeEnd < 0 ? -1 : box.indexOf(0, schemeEnd + 1);
    if (valueEnd < 0) {
        throw new FormatError('an emsg without an end of its text');
    }
    const text = new TextDecoder();
    const timescale = view.getUint32(12) || TIMESCALE;
    return {
        scheme: text.decode(box.subarray(schemeAt, schemeEnd)),
        value: text.decode(box.subarray(schemeEnd + 1, valueEnd)),
        id: view.getUint32(schemeAt - 4),
        time: Number(view.getBigUint64(16)) / timescale,
        message: box.slice(valueEnd + 1),
    };
}

/**
 * @param {Uint8Array} bytes
 * @param {number} at
 * @returns {number | null} Size of the box that begins there, bytes; nothing while its header is not whole.
 */
function boxSize(bytes, at) {
    if (at + 8 > bytes.length) {
        return null;
    }
    const size = new DataView(bytes.buffer, bytes.byteOffset + at, 4).getUint32(0);
    // 0 ("to the end") and 1 (64-bit sizes) are legal MP4 that no edge of ours sends.
    if (size < 8 || size > BOX_BYTES_MAX) {
        throw new FormatError(`a box of ${size} bytes`);
    }
    return size;
}

/**
 * @param {Uint8Array} bytes
 * @param {number} from
 * @param {number} to
 * @returns {{type: string, start: number, end: number}[]} The boxes there; start is behind their headers.
 */
function children(bytes, from, to) {
    const boxes = [];
    let at = from;
    while (at < to) {
        const size = boxSize(bytes, at);
        if (size === null || at + size > to) {
            throw new FormatError('a box larger than its surroundings');
        }
        boxes.push({ type: fourcc(bytes, at + 4), start: at + 8, end: at + size });
        at += size;
    }
    return boxes;
}

/**
 * @param {{type: string, start: number, end: number}[]} boxes
 * @param {string} type
 * @param {number} least Bytes its body must have.
 */
function full(boxes, type, least) {
    const box = boxes.find((box) => box.type === type);
    if (!box || box.end - box.start < least) {
        throw new FormatError(`no ${type}, or a short one`);
    }
    return box;
}

/** @param {Uint8Array} bytes @param {number} at */
function fourcc(bytes, at) {
    return String.fromCharCode(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
}

/** @param {Uint8Array[]} pieces */
function concat(pieces) {
    if (pieces.length === 1) {
        return pieces[0];
    }
    const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
        whole.set(piece, at);
        at += piece.length;
    }
    return whole;
}
