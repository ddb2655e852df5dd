// The stage's page: green room and stage, for whoever holds an invitation.
//
// The invitation is in the address's fragment, which browsers keep to themselves. From there it goes into the
// `Authorization` header and nowhere else: into no address, no storage, no log.

import { Problem, request } from './api.js';
import { byId, make, setText, setWords, show } from './dom.js';
import { bilingual, time } from './event.js';
import { Microphone, SILENT_DBFS } from './microphone.js';
import {
    digits,
    hasText,
    loadText,
    moment,
    onLanguage,
    pick,
    problemText,
    stopwatch,
    t,
} from './text.js';
import { Watch } from './watch.js';
import { Whip } from './whip.js';

/** Bottom of the meters, dBFS. */
const METER_FLOOR = -60;
const METER_MS = 100;

loadText();
const slug = /^\/e\/([a-z0-9-]{1,64})\/stage\/?$/.exec(location.pathname)?.[1] ?? '';
const search = new URLSearchParams(location.search);
// base64url, which needs no decoding; whatever else stands there must not break the header it goes into.
const invite = location.hash.slice(1).replace(/[^\w.~-]/g, '');
const view = {
    state: byId('state', HTMLElement),
    title: byId('title', HTMLElement),
    when: byId('when', HTMLElement),
    clock: byId('clock', HTMLElement),
    alarms: byId('alarms', HTMLElement),
    problem: byId('problem', HTMLElement),
    selfTitle: byId('green-title', HTMLElement),
    words: byId('words', HTMLElement),
    ask: byId('ask', HTMLElement),
    allow: byId('allow', HTMLButtonElement),
    ready: byId('ready', HTMLElement),
    readyWords: byId('ready-words', HTMLElement),
    microphone: byId('microphone', HTMLSelectElement),
    meter: byId('meter', HTMLElement),
    raw: byId('raw', HTMLInputElement),
    join: byId('join', HTMLButtonElement),
    mute: byId('mute', HTMLButtonElement),
    leave: byId('leave', HTMLButtonElement),
    people: byId('people', HTMLElement),
    seats: byId('seats', HTMLElement),
    direct: byId('direct', HTMLElement),
    goLive: byId('go-live', HTMLButtonElement),
    hold: byId('hold', HTMLButtonElement),
    end: byId('end', HTMLButtonElement),
    holdDialog: byId('hold-dialog', HTMLDialogElement),
    endDialog: byId('end-dialog', HTMLDialogElement),
    remote: byId('remote', HTMLAudioElement),
};

/** The last snapshot. @type {any} */
let snapshot = null;
/** What the server's clock is ahead of ours, ms. */
let ahead = 0;
/** Whether news come. */
let informed = false;
/** @type {unknown} */
let problem = invite === '' ? new Problem({ type: 'no_invite' }) : null;
/** Muted by the speaker: holds here whatever the server knows. */
let muted = false;

const microphone = new Microphone(() => {
    problem = new Problem({ type: 'microphone_gone' });
    render();
});
const whip = new Whip({
    address: `/whip/${slug}${search.has('standby') ? '?standby=1' : ''}`,
    bearer: invite,
    remote: view.remote,
    changed: render,
});
const watch = new Watch({
    address: `/api/stage/${slug}/watch`,
    bearer: invite,
    handlers: {
        snapshot: (told) => take(told),
        connection: (open, why) => {
            informed = open;
            if (open) {
                problem = problem instanceof Problem && problem.away ? null : problem;
            } else if (why instanceof Problem && (snapshot === null || !why.away)) {
                problem = why;
            }
            render();
        },
    },
});

const now = () => Date.now() + ahead;

/** @param {any} told */
function take(told) {
    snapshot = told;
    const theirs = time(told.now);
    if (theirs !== null) {
        ahead = theirs - Date.now();
    }
    if (told.state === 'ended' && whip.phase !== 'off') {
        whip.leave();
    }
    render();
}

/** The seat of this invitation, if it has one. */
function ownSeat() {
    const own = snapshot?.you?.seat;
    return (snapshot?.seats ?? []).find((/** @type {any} */ seat) => seat.seat === own) ?? null;
}

/** Whether this invitation may direct the show. */
function directs() {
    // Who has no seat and reads this all the same is the operator.
    return snapshot !== null && snapshot.you?.role !== 'speaker';
}

/** @param {unknown} error */
function fail(error) {
    problem = error;
    render();
}

// What the person does.

/** Opens the microphone that is chosen, with the treatment that is chosen. */
async function openMicrophone() {
    try {
        const track = await microphone.open({ device: view.microphone.value, raw: view.raw.checked });
        track.enabled = !muted;
        await whip.replaceTrack(track);
        problem = null;
        await listMicrophones();
    } catch (error) {
        fail(error);
    }
    render();
}

async function listMicrophones() {
    const devices = await microphone.devices();
    const options = devices.map((device, at) => {
        const label = device.label || t('stage.microphone_n', { number: digits(at + 1, 1) });
        return make('option', { value: device.deviceId }, [label]);
    });
    view.microphone.replaceChildren(...options);
    view.microphone.value = microphone.device;
}

function join() {
    if (microphone.track) {
        problem = null;
        whip.join(microphone.track);
    }
    render();
}

function toggleMute() {
    const seat = ownSeat();
    muted = !(muted || Boolean(seat?.muted));
    const track = microphone.track;
    if (track) {
        // At once and whatever happens to the request.
        track.enabled = !muted;
    }
    if (seat) {
        command(`seats/${seat.seat}`, { muted });
    }
    render();
}

/**
 * @param {string} what `state`, or `seats/{seat}`.
 * @param {unknown} json
 * @returns {Promise<boolean>} Whether it was done.
 */
async function command(what, json) {
    try {
        const { body } = await request(`/api/stage/${slug}/${what}`, { method: 'POST', bearer: invite, json });
        problem = null;
        if (body?.seats) {
            take(body);
        }
        return true;
    } catch (error) {
        fail(error);
        return false;
    }
}

/** @param {HTMLDialogElement} dialog @param {unknown} json */
async function commandFrom(dialog, json) {
    const done = await command('state', json);
    const words = dialog.querySelector('.problem');
    if (words instanceof HTMLElement) {
        show(words, !done);
        setText(words, done ? '' : problemText(problem));
    }
    if (done) {
        dialog.close();
    }
}

function hold() {
    const value = (/** @type {string} */ id) => byId(id, HTMLInputElement).value.trim();
    const minutes = Number(value('hold-minutes'));
    const message = { ar: value('hold-ar'), en: value('hold-en') };
    commandFrom(view.holdDialog, {
        state: 'hold',
        until: minutes > 0 ? new Date(now() + minutes * 60000).toISOString() : undefined,
        message: message.ar || message.en ? message : undefined,
    });
}

// What is shown.

function render() {
    const state = snapshot?.state ?? null;
    show(view.state, state !== null);
    if (state !== null) {
        view.state.dataset.state = snapshot.late ? 'late' : state;
        setText(view.state, t(`state.${snapshot.late ? 'late' : state}`));
    }
    const title = pick(bilingual(snapshot?.title));
    setWords(view.title, title);
    document.title = [title.text, t('stage.title'), t('brand')].filter((text) => text !== '').join(' · ');
    show(view.problem, problem !== null);
    setText(view.problem, problem === null ? '' : problemText(problem));
    show(view.people, snapshot !== null);
    renderClock();
    renderAlarms();
    renderSelf();
    renderSeats();
    renderDirection();
}

function renderClock() {
    const startsAt = time(snapshot?.starts_at);
    const liveAt = time(snapshot?.live_at);
    setText(view.when, startsAt === null ? '' : moment(startsAt));
    let clock = '';
    if (snapshot?.state === 'live' || snapshot?.state === 'hold') {
        clock = liveAt === null ? '' : t('stage.on_air_for', { time: stopwatch(now() - liveAt) });
    } else if (startsAt !== null && snapshot.state !== 'ended') {
        const left = startsAt - now();
        // Rounded up, so that it says nought when it is.
        const time = stopwatch(left > 0 ? Math.ceil(left / 1000) * 1000 : -left);
        clock = t(left > 0 ? 'stage.until' : 'stage.late_by', { time });
    }
    setText(view.clock, clock);
}

function renderAlarms() {
    const alarms = /** @type {string[]} */ (snapshot?.alarms ?? []);
    const texts = alarms.map((name) => {
        return hasText(`alarm.${name}`) ? t(`alarm.${name}`) : t('alarm.other', { name });
    });
    // Written only when they change: an alert is spoken whenever it is.
    const shown = [...view.alarms.children].map((line) => line.textContent);
    if (shown.join('\n') !== texts.join('\n')) {
        view.alarms.replaceChildren(...texts.map((text) => make('p', {}, [text])));
    }
}

function renderSelf() {
    const seated = snapshot === null || Number.isInteger(snapshot.you?.seat);
    const ended = snapshot?.state === 'ended';
    const open = microphone.track !== null;
    const joined = whip.phase !== 'off' && whip.phase !== 'refused';
    const seat = ownSeat();
    const onStage = joined && Boolean(seat?.on_stage);
    setText(view.selfTitle, t(onStage ? 'stage.title' : 'stage.green'));
    show(view.ask, seated && !open && !ended);
    view.allow.disabled = invite === '';
    show(view.ready, seated && open && !ended);
    show(view.readyWords, !joined);
    show(view.join, !joined);
    show(view.leave, joined);
    show(view.mute, joined);
    const silent = muted || Boolean(seat?.muted);
    view.mute.setAttribute('aria-pressed', String(silent));
    setText(view.mute, t(silent ? 'stage.unmute' : 'stage.mute'));
    const taken = joined && whip.why instanceof Problem && whip.why.status === 409;
    const words = t(`stage.words.${selfWords(seated, ended, onStage, silent)}`);
    setText(view.words, taken ? problemText(whip.why) : words);
    if (whip.phase === 'refused' && problem === null) {
        fail(whip.why);
    }
}

/**
 * @param {boolean} seated
 * @param {boolean} ended
 * @param {boolean} onStage
 * @param {boolean} silent
 */
function selfWords(seated, ended, onStage, silent) {
    if (ended) {
        return 'ended';
    }
    if (!seated) {
        return 'no_seat';
    }
    switch (whip.phase) {
        case 'connecting':
        case 'reconnecting':
            return whip.phase;
        case 'on':
            break;
        default:
            return 'idle';
    }
    if (!informed) {
        return 'watching';
    }
    if (silent) {
        return 'muted';
    }
    if (!onStage) {
        return 'green';
    }
    return { live: 'on_air', hold: 'hold' }[/** @type {string} */ (snapshot?.state)] ?? 'on_stage_before';
}

/** Seats keep their elements, so that a button keeps its focus while its surroundings change. */
function renderSeats() {
    const seats = /** @type {any[]} */ (snapshot?.seats ?? []);
    for (const line of [...view.seats.children]) {
        if (!seats.some((seat) => String(seat.seat) === /** @type {HTMLElement} */ (line).dataset.seat)) {
            line.remove();
        }
    }
    for (const seat of seats) {
        const id = String(seat.seat);
        let line = /** @type {HTMLElement | null} */ (view.seats.querySelector(`[data-seat="${CSS.escape(id)}"]`));
        if (!line) {
            line = newSeat(id);
            view.seats.append(line);
        }
        renderSeat(line, seat);
    }
}

/** @param {string} id */
function newSeat(id) {
    const button = (/** @type {string} */ name, /** @type {() => void} */ then) => {
        const element = make('button', { type: 'button', 'data-do': name });
        element.addEventListener('click', then);
        return element;
    };
    const seat = () => (snapshot?.seats ?? []).find((/** @type {any} */ seat) => String(seat.seat) === id);
    return make('li', { 'data-seat': id }, [
        make('div', {}, [make('bdi', { class: 'name' }), make('small', {})]),
        make('div', { class: 'buttons' }, [
            button('stage', () => command(`seats/${id}`, { on_stage: !seat()?.on_stage })),
            button('mute', () => command(`seats/${id}`, { muted: !seat()?.muted })),
        ]),
        make('div', { class: 'meter', 'aria-hidden': 'true' }, [make('i')]),
    ]);
}

/** @param {HTMLElement} line @param {any} seat */
function renderSeat(line, seat) {
    const own = snapshot.you?.seat === seat.seat;
    const name = seat.name || t('stage.seat', { number: digits(seat.seat + 1, 1) });
    const part = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (line.querySelector(selector));
    line.dataset.speaking = String(Boolean(seat.speaking));
    setText(part('.name'), own ? `${name} (${t('stage.you')})` : name);
    part('.name').dir = 'auto';
    const facts = [t(`role.${seat.role}`)];
    if (!seat.connected) {
        facts.push(t('stage.absent'));
    } else {
        facts.push(t(seat.on_stage ? 'stage.on_stage' : 'stage.in_green'));
    }
    if (seat.muted) {
        facts.push(t('stage.muted'));
    } else if (seat.speaking) {
        facts.push(t('stage.speaking'));
    }
    setText(part('small'), facts.join(' · '));
    setMeter(part('.meter'), own && microphone.track ? microphone.level : seat.level_dbfs);
    const directing = directs() && snapshot.state !== 'ended';
    show(part('.buttons'), directing);
    const label = (/** @type {string} */ which, /** @type {string} */ key) => {
        const button = part(`[data-do="${which}"]`);
        setText(button, t(key));
        button.setAttribute('aria-label', t('stage.for', { action: t(key), name }));
    };
    label('stage', seat.on_stage ? 'stage.take' : 'stage.bring');
    label('mute', seat.muted ? 'stage.unmute_other' : 'stage.mute_other');
    show(part('[data-do="mute"]'), !own);
    /** @type {HTMLButtonElement} */ (part('[data-do="stage"]')).disabled = !seat.connected && !seat.on_stage;
}

function renderDirection() {
    const state = snapshot?.state;
    show(view.direct, directs() && state !== 'ended');
    setText(view.goLive, t(state === 'hold' ? 'stage.go_on' : 'stage.go_live'));
    view.goLive.disabled = state === 'live';
    view.hold.disabled = state !== 'live' && state !== 'hold';
}

/** @param {HTMLElement} meter @param {number} dbfs */
function setMeter(meter, dbfs) {
    const level = Math.min(0, Math.max(METER_FLOOR, Number.isFinite(dbfs) ? dbfs : SILENT_DBFS));
    meter.style.setProperty('--level', `${Math.round(100 * (1 - level / METER_FLOOR))}%`);
    if (meter.hasAttribute('role')) {
        meter.setAttribute('aria-valuenow', String(Math.round(level)));
    }
}

view.allow.addEventListener('click', openMicrophone);
view.microphone.addEventListener('change', openMicrophone);
view.raw.addEventListener('change', openMicrophone);
view.join.addEventListener('click', join);
view.mute.addEventListener('click', toggleMute);
view.leave.addEventListener('click', () => whip.leave());
view.goLive.addEventListener('click', () => command('state', { state: 'live' }));
view.hold.addEventListener('click', () => view.holdDialog.showModal());
view.end.addEventListener('click', () => view.endDialog.showModal());
byId('hold-go', HTMLButtonElement).addEventListener('click', hold);
byId('end-go', HTMLButtonElement).addEventListener('click', () => commandFrom(view.endDialog, { state: 'ended' }));
for (const button of document.querySelectorAll('[data-close]')) {
    button.addEventListener('click', () => button.closest('dialog')?.close());
}
navigator.mediaDevices?.addEventListener('devicechange', () => {
    if (microphone.track) {
        listMicrophones().catch(() => {});
    }
});
addEventListener('online', () => {
    whip.hurry();
    watch.hurry();
});
// Another invitation in the same tab is another person.
addEventListener('hashchange', () => location.reload());
addEventListener('pagehide', () => whip.leave());
onLanguage(render);
setInterval(() => {
    if (microphone.track) {
        setMeter(view.meter, muted ? SILENT_DBFS : microphone.level);
        const own = view.seats.querySelector(`[data-seat="${Number(snapshot?.you?.seat ?? -1)}"] .meter`);
        if (own instanceof HTMLElement) {
            setMeter(own, muted ? SILENT_DBFS : microphone.level);
        }
    }
}, METER_MS);
setInterval(renderClock, 1000);

view.raw.checked = search.has('raw');
if (invite !== '') {
    watch.start();
}
render();

/** A look inside, for tests and curious people: nothing here changes anything. */
Object.defineProperty(window, 'minassaStage', {
    value: {
        get state() {
            return snapshot;
        },
        get phase() {
            return whip.phase;
        },
        get pc() {
            return whip.pc;
        },
        get track() {
            return microphone.track;
        },
        get counters() {
            return whip.counters;
        },
        get informed() {
            return informed;
        },
        remote: view.remote,
    },
});
