// What a page knows about an event, from whichever source told it last. Pure.

/**
 * @typedef {'scheduled' | 'doors' | 'live' | 'hold' | 'ended'} State
 *
 * @typedef {{ar: string, en: string}} Bilingual Empty where a language is missing.
 *
 * @typedef {object} EventView Times in ms since 1970 (UTC).
 * @property {string} slug
 * @property {Bilingual} title
 * @property {State | null} state
 * @property {number | null} startsAt The announced start.
 * @property {number | null} doorsAt When the programme begins.
 * @property {number | null} liveAt When it went live.
 * @property {number | null} endedAt
 * @property {{until: number | null, message: Bilingual} | null} hold
 * @property {number | null} listeners
 * @property {number} level Of the ladder, 0–6.
 * @property {Bilingual | null} sentence What the ladder is doing, in the server's words.
 * @property {string | null} push Address of the push door, if it was told.
 * @property {string | null} files Address of the files door, if it was told.
 */

export const STATES = /** @type {State[]} */ (['scheduled', 'doors', 'live', 'hold', 'ended']);

/**
 * @param {string} slug
 * @returns {EventView}
 */
export function unknownEvent(slug) {
    return {
        slug,
        title: { ar: '', en: '' },
        state: null,
        startsAt: null,
        doorsAt: null,
        liveAt: null,
        endedAt: null,
        hold: null,
        listeners: null,
        level: 0,
        sentence: null,
        push: null,
        files: null,
    };
}

/**
 * Takes in what control's public view or status says; what it does not mention stays.
 * @param {EventView} before
 * @param {any} told
 * @returns {EventView}
 */
export function withTold(before, told) {
    if (!told || typeof told !== 'object') {
        return before;
    }
    const state = stateOf(told.state) ?? before.state;
    const level = told.level ?? told.ladder;
    const address = (/** @type {any} */ value) => (typeof value === 'string' && value !== '' ? value : null);
    return {
        ...before,
        title: told.title === undefined ? before.title : bilingual(told.title),
        state: latest(before.state, state),
        startsAt: time(told.starts_at ?? told.start) ?? before.startsAt,
        doorsAt: time(told.doors_at) ?? before.doorsAt,
        liveAt: time(told.live_at) ?? before.liveAt,
        endedAt: time(told.ended_at) ?? before.endedAt,
        hold: told.hold ? { until: time(told.hold.until), message: bilingual(told.hold.message) } : null,
        listeners: count(told.listeners) ?? before.listeners,
        level: count(level?.level ?? level) ?? before.level,
        sentence: told.sentence ? bilingual(told.sentence) : level?.sentence ? bilingual(level.sentence) : null,
        push: address(told.push ?? told.addresses?.push) ?? before.push,
        files: address(told.files ?? told.addresses?.files) ?? before.files,
    };
}

/**
 * Takes in the status that an edge inserts into the pushed stream once a second (`urn:minassa:status:1`).
 * @param {EventView} before
 * @param {any} status Its JSON: `s` state, `n` listeners, `t` ms when the newest part ends, `l` ladder level, `u` ms until
 *   when a hold is expected to last, `m` its message.
 * @returns {EventView}
 */
export function withStatus(before, status) {
    const state = stateOf(status?.s) ?? before.state;
    return {
        ...before,
        state: latest(before.state, state),
        hold: state === 'hold' ? { until: time(status.u), message: bilingual(status.m) } : null,
        listeners: count(status?.n) ?? before.listeners,
        level: count(status?.l) ?? before.level,
        // The stream brings the level only; its words come from our own tables.
        sentence: null,
    };
}

/**
 * @param {EventView} event
 * @param {number} now
 * @returns {boolean} Whether the announced start has passed and nothing has begun.
 */
export function isLate(event, now) {
    const waits = event.state === 'scheduled' || event.state === 'doors';
    return waits && event.startsAt !== null && now > event.startsAt + 2000;
}

/**
 * @param {any} value A text in both languages, or in one we cannot tell.
 * @returns {Bilingual}
 */
export function bilingual(value) {
    if (typeof value === 'string') {
        return { ar: '', en: value };
    }
    const text = (/** @type {any} */ text) => (typeof text === 'string' ? text : '');
    return { ar: text(value?.ar), en: text(value?.en) };
}

/**
 * @param {any} value RFC 3339, or ms since 1970, or seconds.
 * @returns {number | null} ms since 1970.
 */
export function time(value) {
    if (typeof value === 'number' && Number.isFinite(value)) {
        // Seconds stay below this until the year 5138, milliseconds passed it in 1973.
        return value < 1e11 ? value * 1000 : value;
    }
    const parsed = typeof value === 'string' ? Date.parse(value) : NaN;
    return Number.isNaN(parsed) ? null : parsed;
}

/** @param {any} value @returns {State | null} */
function stateOf(value) {
    return STATES.includes(value) ? value : null;
}

/**
 * Ended is final; an older answer must not bring an event back.
 * @param {State | null} before
 * @param {State | null} state
 */
function latest(before, state) {
    return before === 'ended' ? before : state;
}

/** @param {any} value */
function count(value) {
    return typeof value === 'number' && Number.isFinite(value) && value >= 0 ? Math.floor(value) : null;
}
