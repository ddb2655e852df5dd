// The reader's language: texts, numbers, times, and the switch between Arabic and English.
//
// The page comes with one table inside (`<script type="application/json" id="text">`, data, not code); the other is
// fetched when the language is switched, so that whoever listens goes on listening.

/** @typedef {import('./event.js').Bilingual} Bilingual */
/** @typedef {'ar' | 'en'} Language */

/** @type {Record<string, string>} */
let table = {};
/** @type {Language} */
let language = 'en';
/** @type {(() => void)[]} */
const listeners = [];

const DIRECTIONS = /** @type {const} */ ({ ar: 'rtl', en: 'ltr' });

/** Reads the table that the page brought with it. */
export function loadText() {
    const root = document.documentElement;
    language = root.lang === 'ar' ? 'ar' : 'en';
    useTable(JSON.parse(document.getElementById('text')?.textContent ?? '{}'), language);
    for (const link of document.querySelectorAll('[data-switch]')) {
        link.addEventListener('click', (event) => {
            event.preventDefault();
            const to = /** @type {HTMLElement} */ (link).dataset.switch === 'ar' ? 'ar' : 'en';
            switchLanguage(to).catch((error) => console.warn('minassa: no other language', error));
        });
    }
}

/**
 * @param {Record<string, string>} texts
 * @param {Language} tag
 */
export function useTable(texts, tag) {
    table = texts;
    language = tag;
}

/** The page's language. */
export function currentLanguage() {
    return language;
}

/**
 * Calls back whenever the language has changed, to render again.
 * @param {() => void} then
 */
export function onLanguage(then) {
    listeners.push(then);
}

/** @param {Language} to */
async function switchLanguage(to) {
    if (to === language) {
        return;
    }
    const response = await fetch(new URL(`text/${to}.json`, import.meta.url));
    useTable(await response.json(), to);
    const root = document.documentElement;
    root.lang = to;
    root.dir = DIRECTIONS[to];
    // A reload stays in this language. The fragment, which may hold an invitation, stays where it is: in the page.
    const address = new URL(location.href);
    address.searchParams.set('lang', to);
    history.replaceState(history.state, '', address);
    fillText(document);
    for (const then of listeners) {
        then();
    }
}

/**
 * Fills everything in the page that names its text: `data-t` (content) and `data-t-label` (accessible name).
 * @param {ParentNode} within
 */
export function fillText(within) {
    for (const element of /** @type {NodeListOf<HTMLElement>} */ (within.querySelectorAll('[data-t]'))) {
        element.textContent = lookUp(element.dataset.t ?? '');
    }
    for (const element of /** @type {NodeListOf<HTMLElement>} */ (within.querySelectorAll('[data-t-label]'))) {
        element.setAttribute('aria-label', lookUp(element.dataset.tLabel ?? ''));
    }
}

/**
 * @param {string} key
 * @param {Record<string, string>} [values] Put in place of `{name}`.
 * @returns {string}
 */
export function t(key, values = {}) {
    return lookUp(key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/**
 * @param {string} key
 * @returns {boolean}
 */
export function hasText(key) {
    return Object.hasOwn(table, key);
}

/**
 * A text that depends on a number, in the plural forms of the language: `key.zero` … `key.other`.
 * @param {string} key
 * @param {number} count Put in place of `{count}`.
 */
export function plural(key, count) {
    const form = new Intl.PluralRules(language).select(count);
    return lookUp(`${key}.${form}`).replace('{count}', number(count));
}

/** @param {string} key */
function lookUp(key) {
    return Object.hasOwn(table, key) ? table[key] : key;
}

/**
 * The half of a bilingual text that this reader can read, or else the other one.
 * @param {Bilingual} text
 * @returns {{text: string, lang: Language}}
 */
export function pick(text) {
    const other = language === 'ar' ? 'en' : 'ar';
    return text[language] ? { text: text[language], lang: language } : { text: text[other], lang: other };
}

/** The reader's own locale of the page's language, so that digits and clocks look as they do at home. */
export function locale() {
    const own = (globalThis.navigator?.languages ?? []).find((tag) => tag.split('-')[0] === language);
    return own ?? language;
}

/** @param {number} value */
export function number(value) {
    return new Intl.NumberFormat(locale()).format(value);
}

/**
 * A moment, in the reader's own time zone and named as such.
 * @param {number} ms Since 1970.
 */
export function moment(ms) {
    return new Intl.DateTimeFormat(locale(), {
        calendar: 'gregory',
        weekday: 'long',
        day: 'numeric',
        month: 'long',
        hour: 'numeric',
        minute: '2-digit',
        timeZoneName: 'short',
    }).format(ms);
}

/** @param {number} ms Since 1970. */
export function clockTime(ms) {
    return new Intl.DateTimeFormat(locale(), { hour: 'numeric', minute: '2-digit' }).format(ms);
}

/**
 * A duration as a clock: 5:07, 1:02:03.
 * @param {number} ms
 */
export function stopwatch(ms) {
    const seconds = Math.max(0, Math.floor(ms / 1000));
    const hours = Math.floor(seconds / 3600);
    const minutes = Math.floor(seconds / 60) % 60;
    const tail = [digits(minutes, hours > 0 ? 2 : 1), digits(seconds % 60, 2)];
    return (hours > 0 ? [digits(hours, 1), ...tail] : tail).join(':');
}

/**
 * @param {number} value
 * @param {number} least Digits.
 */
export function digits(value, least) {
    return new Intl.NumberFormat(locale(), { minimumIntegerDigits: least, useGrouping: false }).format(value);
}

/**
 * A length of time as one would say it: 40 seconds, 3 minutes, 2 hours.
 * @param {number} seconds
 */
export function span(seconds) {
    const [value, unit] =
        seconds < 90 ? [seconds, 'second'] : seconds < 5400 ? [seconds / 60, 'minute'] : [seconds / 3600, 'hour'];
    return new Intl.NumberFormat(locale(), { style: 'unit', unit, unitDisplay: 'long' }).format(Math.round(value));
}

/**
 * What went wrong, in the reader's language.
 * @param {unknown} error
 * @returns {string}
 */
export function problemText(error) {
    const { type, status } = /** @type {{type?: string, status?: number}} */ (error ?? {});
    if (type && hasText(`problem.${type}`)) {
        return t(`problem.${type}`);
    }
    if (status && hasText(`problem.status.${status}`)) {
        return t(`problem.status.${status}`);
    }
    return t(status && status >= 500 ? 'problem.server' : 'problem.other');
}
