// The list of events.

import { request } from './api.js';
import { jittered } from './backoff.js';
import { byId, make, setText, show } from './dom.js';
import { unknownEvent, withTold } from './event.js';
import { loadText, moment, onLanguage, pick, problemText, t } from './text.js';
/** @typedef {import('./event.js').EventView} EventView */

const RELOAD_MS = 30000;

loadText();
const words = byId('words', HTMLElement);
/** @type {EventView[] | null} */
let events = null;
/** @type {unknown} */
let problem = null;

async function load() {
    try {
        const { body } = await request('/api/events');
        const list = Array.isArray(body) ? body : Array.isArray(body?.events) ? body.events : [];
        events = list.map((/** @type {any} */ told) => withTold(unknownEvent(String(told?.slug ?? told?.event)), told));
        problem = null;
    } catch (error) {
        problem = error;
    }
    render();
    setTimeout(load, jittered(RELOAD_MS));
}

function render() {
    const shown = events ?? [];
    const on = (/** @type {EventView} */ event) => event.state === 'live' || event.state === 'hold';
    fill('now', shown.filter(on));
    const ended = (/** @type {EventView} */ event) => event.state === 'ended';
    const byStart = (/** @type {EventView} */ a, /** @type {EventView} */ b) => (a.startsAt ?? 0) - (b.startsAt ?? 0);
    fill('next', shown.filter((event) => !on(event) && !ended(event)).sort(byStart));
    fill('past', shown.filter(ended).sort((a, b) => byStart(b, a)));
    show(words, events === null || shown.length === 0 || problem !== null);
    if (problem !== null) {
        setText(words, problemText(problem));
    } else {
        setText(words, t(events === null ? 'index.loading' : 'index.none'));
    }
}

/** @param {string} id @param {EventView[]} events */
function fill(id, events) {
    const section = byId(id, HTMLElement);
    show(section, events.length > 0);
    section.querySelector('ul')?.replaceChildren(...events.map(item));
}

/** @param {EventView} event */
function item(event) {
    const title = pick(event.title);
    const name = make('bdi', { dir: 'auto', lang: title.lang }, [title.text || t('index.untitled')]);
    const content = [make('strong', {}, [name])];
    if (event.state !== null) {
        content.push(make('span', { class: 'pill', 'data-state': event.state }, [t(`state.${event.state}`)]));
    }
    if (event.startsAt !== null) {
        content.push(make('span', { class: 'when' }, [moment(event.startsAt)]));
    }
    // Who chose a language keeps it.
    const lang = new URLSearchParams(location.search).get('lang');
    const href = `/e/${encodeURIComponent(event.slug)}${lang ? `?lang=${encodeURIComponent(lang)}` : ''}`;
    return make('li', {}, [make('a', { href }, content)]);
}

onLanguage(render);
load();
