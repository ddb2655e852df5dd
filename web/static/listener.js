// The listener's page: before, during and after an event.

import { request } from './api.js';
import { Nap, jittered } from './backoff.js';
import { byId, setText, setWords, show } from './dom.js';
import { isLate, time, unknownEvent, withStatus, withTold } from './event.js';
import { Listening } from './listening.js';
import { Replay, recordingAddresses } from './replay.js';
import {
    clockTime,
    digits,
    loadText,
    moment,
    number,
    onLanguage,
    pick,
    plural,
    problemText,
    span,
    stopwatch,
    t,
} from './text.js';

/** How often to ask how things are, ms, when no stream says so: far from the start, otherwise. */
const POLL_FAR_MS = 30000;
const POLL_MS = 5000;
/** "Far" from the start, ms. */
const FAR_MS = 10 * 60000;
/** A clock that differs from the server's by less is right: what it says may be a second old. */
const CLOCK_MS = 2000;
/** One step back or forth in the recording, seconds. */
const SKIP_S = 15;
/** Pages that learn of the same moment ask for the details spread over this time, ms. */
const SPREAD_MS = 4000;

loadText();
const slug = /^\/e\/([a-z0-9-]{1,64})\/?$/.exec(location.pathname)?.[1] ?? '';
const search = new URLSearchParams(location.search);
const audio = byId('audio', HTMLAudioElement);
const view = {
    state: byId('state', HTMLElement),
    title: byId('title', HTMLElement),
    when: byId('when', HTMLElement),
    countdown: byId('countdown', HTMLElement),
    live: byId('live', HTMLElement),
    play: byId('play', HTMLButtonElement),
    playLabel: byId('play-label', HTMLElement),
    words: byId('words', HTMLElement),
    challenge: byId('challenge', HTMLProgressElement),
    problem: byId('problem', HTMLElement),
    hold: byId('hold', HTMLElement),
    holdMessage: byId('hold-message', HTMLElement),
    holdUntil: byId('hold-until', HTMLElement),
    ladder: byId('ladder', HTMLElement),
    listeners: byId('listeners', HTMLElement),
    elapsed: byId('elapsed', HTMLElement),
    elapsedTime: byId('elapsed-time', HTMLElement),
    volume: byId('volume', HTMLInputElement),
    replay: byId('replay', HTMLElement),
    replayWords: byId('replay-words', HTMLElement),
    replayPlayer: byId('replay-player', HTMLElement),
    replayPlay: byId('replay-play', HTMLButtonElement),
    replayLabel: byId('replay-label', HTMLElement),
    replaySeek: byId('replay-seek', HTMLInputElement),
    replayPosition: byId('replay-position', HTMLElement),
    replayBack: byId('replay-back', HTMLButtonElement),
    replayForward: byId('replay-forward', HTMLButtonElement),
    replayLength: byId('replay-length', HTMLElement),
};

let event = unknownEvent(slug);
/** @type {unknown} Why nothing is known of the event. */
let problem = null;
/** The browser refused to make sound. */
let refused = false;
/** What the server's clock is ahead of ours, ms. */
let ahead = 0;
let replaying = false;
/** @type {Replay | null} */
let replay = null;
const poll = new Nap();

const listening = new Listening({
    slug,
    audio,
    managed: search.has('mms'),
    handlers: {
        changed: render,
        status: (status) => {
            const before = event.state;
            event = withStatus(event, status);
            if (event.state === 'live' && before !== 'live' && event.liveAt === null) {
                // Since when is not in the stream: for that one figure, ask once, and not all in the same second.
                setTimeout(ask, SPREAD_MS * Math.random());
            }
            render();
        },
        ended: () => {
            event = { ...event, state: 'ended' };
            render();
        },
    },
});

const now = () => Date.now() + ahead;

async function ask() {
    try {
        const known = problem === null && event.state !== null;
        const { body, date } = await request(`/api/events/${slug}${known ? '/status' : ''}`);
        problem = null;
        const theirs = time(body?.now) ?? date;
        if (theirs !== null) {
            ahead = Math.abs(theirs - Date.now()) > CLOCK_MS ? theirs - Date.now() : 0;
        }
        event = withTold(event, body);
        listening.tickets.learn(event);
    } catch (error) {
        // What was known stays; a page that never knew anything says why.
        if (event.state === null) {
            problem = error;
        }
    }
    if (event.state !== null && event.state !== 'scheduled') {
        listening.go();
    }
    render();
}

/** Asks again and again, as long as no stream tells. */
async function keepAsking() {
    for (;;) {
        if (!listening.informed) {
            await ask();
        }
        if (event.state === 'ended') {
            return;
        }
        const until = event.startsAt === null ? 0 : Math.min(event.startsAt, event.doorsAt ?? Infinity) - now();
        const far = event.state === 'scheduled' && until > FAR_MS;
        await poll.sleep(jittered(far ? POLL_FAR_MS : POLL_MS));
    }
}

async function press() {
    if (listening.phase !== 'off' && listening.phase !== 'unplayable') {
        listening.stop();
        return;
    }
    refused = false;
    try {
        const playing = listening.start(event.state !== 'scheduled');
        if (event.state === 'scheduled') {
            // Who is here before doors takes part in the draw.
            listening.tickets.current().catch(() => {}).then(render);
        }
        await playing;
    } catch {
        refused = true;
    }
    render();
}

async function startReplay() {
    replaying = true;
    listening.stop();
    const files = await filesDoor();
    const addresses = recordingAddresses(files, slug);
    byId('download-best', HTMLAnchorElement).href = addresses.best;
    byId('download-ogg', HTMLAnchorElement).href = addresses.ogg;
    byId('download-mp3', HTMLAnchorElement).href = addresses.mp3;
    byId('report', HTMLAnchorElement).href = `/e/${slug}/report`;
    const from = Number(/^#t=(\d+(\.\d+)?)$/.exec(location.hash)?.[1] ?? 0);
    replay = new Replay({ audio, addresses, from, changed: render });
    render();
}

/** Where recordings are: as told, as the last ticket said, or where control sends us. */
async function filesDoor() {
    const told = event.files && new URL('/', event.files).href;
    if (told ?? listening.tickets.files) {
        return told ?? listening.tickets.files ?? '/';
    }
    try {
        await listening.tickets.current();
    } catch {
        // No ticket for what is over: then by the redirect of the live address.
    }
    if (listening.tickets.files) {
        return listening.tickets.files;
    }
    try {
        const response = await fetch(`/live/${slug}/index.m3u8`);
        return new URL('/', response.url).href;
    } catch {
        return new URL('/', location.href).href;
    }
}

// What is shown.

function render() {
    const { phase } = listening;
    if (event.state === 'ended' && !replaying && phase !== 'playing') {
        startReplay();
    }
    const late = isLate(event, now());
    show(view.state, event.state !== null);
    if (event.state !== null) {
        view.state.dataset.state = late ? 'late' : event.state;
        setText(view.state, t(`state.${late ? 'late' : event.state}`));
    }
    const title = pick(event.title);
    setWords(view.title, title);
    document.title = title.text ? `${title.text} · ${t('brand')}` : t('brand');
    const begun = event.state === 'live' || event.state === 'hold' || event.state === 'ended';
    const when = event.startsAt === null ? '' : moment(event.startsAt);
    setText(view.when, when && t(begun ? 'listen.started' : 'listen.starts', { time: when }));
    show(view.live, event.state !== null && !replaying);
    show(view.replay, replaying);
    show(view.problem, problem !== null);
    setText(view.problem, problem === null ? '' : problemText(problem));
    renderLive(phase, late);
    renderTime();
    renderReplay();
    renderSession(title.text, phase);
}

/** @param {import('./listening.js').Phase} phase @param {boolean} late */
function renderLive(phase, late) {
    const on = phase !== 'off' && phase !== 'unplayable';
    view.play.dataset.on = String(on);
    view.play.dataset.sound = String(phase === 'playing');
    setText(view.playLabel, t(on ? 'listen.stop' : event.state === 'scheduled' ? 'listen.arm' : 'listen.play'));
    setText(view.words, words(phase, late));
    const answering = on ? listening.tickets.answering : null;
    show(view.challenge, answering !== null && !answering.waits);
    view.challenge.value = answering?.progress ?? 0;
    const hold = event.state === 'hold' ? event.hold : null;
    show(view.hold, hold !== null);
    if (hold) {
        const message = pick(hold.message);
        setWords(view.holdMessage, message.text ? message : { text: t('hold.default'), lang: '' });
        show(view.holdUntil, hold.until !== null && hold.until > now());
        setText(view.holdUntil, hold.until === null ? '' : t('hold.until', { time: clockTime(hold.until) }));
    }
    const level = Math.min(6, event.level);
    show(view.ladder, level > 0);
    const sentence = event.sentence ? pick(event.sentence).text : '';
    setText(view.ladder, level > 0 ? sentence || t(`ladder.${level}`) : '');
    show(view.listeners, event.listeners !== null && event.listeners > 0);
    setText(view.listeners, plural('listeners', event.listeners ?? 0));
}

/** @param {import('./listening.js').Phase} phase @param {boolean} late */
function words(phase, late) {
    if (refused) {
        return t('words.press');
    }
    const answering = phase === 'off' || phase === 'playing' ? null : listening.tickets.answering;
    if (answering) {
        // Said once, and once more if it takes longer: how far it is can be looked at, and is not read out.
        return t(answering.waits ? 'words.challenge_wait' : 'words.challenge');
    }
    switch (phase) {
        case 'off': {
            const state = late ? 'late' : event.state === 'hold' ? 'live' : event.state;
            return state === null || state === 'ended' ? '' : t(`words.${state}`);
        }
        case 'waiting': {
            const room = roomWords(/** @type {Partial<import('./tickets.js').Waiting>} */ (listening.why ?? {}));
            return listening.behind ? `${room} ${t('words.room_delayed')}` : room;
        }
        case 'playing':
            if (event.state === 'hold') {
                return t('words.playing_hold');
            }
            return t(event.state === 'live' || event.state === 'ended' ? 'words.playing' : 'words.playing_doors');
        case 'armed':
            return t(listening.tickets.placed ? 'words.armed_draw' : 'words.armed');
        default:
            return t(`words.${phase}`);
    }
}

/** @param {Partial<import('./tickets.js').Waiting>} why */
function roomWords({ place = null, low = null, high = null, drawn = true }) {
    if (!drawn) {
        return t('words.room_draw');
    }
    if (place === null) {
        return t('words.room');
    }
    if (place === 0) {
        return t('words.room_next');
    }
    const ahead = plural('room.ahead', place);
    return low === null || high === null
        ? t('words.room_still', { ahead })
        : t('words.room_place', { ahead, low: span(low), high: span(high) });
}

/** @param {string} unit @param {number} value @param {number} least Digits. */
function count(unit, value, least) {
    setText(byId(`count-${unit}`, HTMLElement), digits(value, least));
    setText(byId(`unit-${unit}`, HTMLElement), plural(`unit.${unit}`, value));
}

/** What changes with every second. */
function renderTime() {
    const left = event.startsAt === null ? 0 : event.startsAt - now();
    const waits = event.state === 'scheduled' || event.state === 'doors';
    show(view.countdown, waits && left > 0);
    if (waits && left > 0) {
        const seconds = Math.ceil(left / 1000);
        const days = Math.floor(seconds / 86400);
        show(byId('count-days-box', HTMLElement), days > 0);
        count('days', days, 1);
        count('hours', Math.floor(seconds / 3600) % 24, 2);
        count('minutes', Math.floor(seconds / 60) % 60, 2);
        count('seconds', seconds % 60, 2);
    }
    const onAir = (event.state === 'live' || event.state === 'hold') && event.liveAt !== null;
    show(view.elapsed, onAir);
    if (onAir && event.liveAt !== null) {
        // As heard, if something is heard: a minute behind is a minute behind here too.
        const heard = listening.phase === 'playing' ? listening.wallclock(audio.currentTime) : null;
        setText(view.elapsedTime, stopwatch((heard ?? now()) - event.liveAt));
    }
}

function renderReplay() {
    const state = replay?.state ?? 'preparing';
    setText(view.replayWords, t(state === 'ready' ? 'replay.words' : `replay.${state}`));
    show(view.replayPlayer, state === 'ready');
    if (!replay || state !== 'ready') {
        return;
    }
    view.replayPlay.dataset.on = String(replay.playing);
    setText(view.replayLabel, t(replay.playing ? 'replay.pause' : 'replay.play'));
    const [position, length] = [replay.position, replay.length];
    view.replaySeek.max = String(Math.floor(length));
    if (document.activeElement !== view.replaySeek || !view.replaySeek.dataset.held) {
        view.replaySeek.value = String(Math.floor(position));
    }
    const at = stopwatch(position * 1000);
    view.replaySeek.setAttribute('aria-valuetext', at);
    setText(view.replayPosition, at);
    setText(view.replayLength, stopwatch(length * 1000));
    setText(view.replayBack, `−${digits(SKIP_S, 1)}`);
    setText(view.replayForward, `+${digits(SKIP_S, 1)}`);
}

/** @param {string} title @param {import('./listening.js').Phase} phase */
function renderSession(title, phase) {
    const session = navigator.mediaSession;
    if (!session || !('MediaMetadata' in window)) {
        return;
    }
    if (session.metadata?.title !== title || session.metadata.artist !== t('brand')) {
        const artwork = [{ src: new URL('icon.svg', import.meta.url).href, type: 'image/svg+xml', sizes: 'any' }];
        session.metadata = new MediaMetadata({ title, artist: t('brand'), artwork });
    }
    if (!replaying) {
        session.playbackState = phase === 'off' || phase === 'unplayable' ? 'none' : 'playing';
    } else if (replay) {
        session.playbackState = replay.playing ? 'playing' : 'paused';
    }
}

/** Keys and lock screens act on the live player; the recording's own player needs no help. */
function listenToSession() {
    const skip = (/** @type {number} */ seconds) => replay?.seek(replay.position + seconds);
    const actions = /** @type {const} */ ([
        ['play', () => (replay ? replay.toggle() : press())],
        ['pause', () => (replay ? replay.toggle() : listening.stop())],
        ['stop', () => (replay ? audio.pause() : listening.stop())],
        ['seekbackward', () => skip(-SKIP_S)],
        ['seekforward', () => skip(SKIP_S)],
    ]);
    for (const [action, then] of actions) {
        try {
            navigator.mediaSession?.setActionHandler(action, () => void then());
        } catch {
            // An action this browser does not know.
        }
    }
}

view.play.addEventListener('click', press);
view.replayPlay.addEventListener('click', () => replay?.toggle());
view.replaySeek.addEventListener('input', () => {
    view.replaySeek.dataset.held = 'true';
    setText(view.replayPosition, stopwatch(Number(view.replaySeek.value) * 1000));
});
view.replaySeek.addEventListener('change', () => {
    delete view.replaySeek.dataset.held;
    replay?.seek(Number(view.replaySeek.value));
});
view.replayBack.addEventListener('click', () => replay?.seek(replay.position - SKIP_S));
view.replayForward.addEventListener('click', () => replay?.seek(replay.position + SKIP_S));
view.volume.addEventListener('input', () => {
    audio.volume = Number(view.volume.value) / 100;
});
document.addEventListener('visibilitychange', () => {
    if (!document.hidden) {
        poll.wake();
        render();
    }
});
addEventListener('online', () => poll.wake());
onLanguage(render);
listenToSession();
setInterval(() => {
    renderTime();
    // States that come with time alone: late, a hold whose time has passed.
    render();
}, 1000);
render();
keepAsking();

/** A look inside, for tests and curious people: nothing here changes anything. */
Object.defineProperty(window, 'minassa', {
    value: {
        audio,
        get event() {
            return event;
        },
        get phase() {
            return listening.phase;
        },
        get counters() {
            return { ...listening.counters.stream, ...listening.counters.player };
        },
        get delay() {
            return listening.delay;
        },
        get part() {
            return listening.part;
        },
        get newest() {
            return listening.ring.newest?.number ?? null;
        },
        wallclock: (/** @type {number} */ at) => listening.wallclock(at),
        has: (/** @type {number} */ part) => listening.ring.has(part),
        get replay() {
            return replay && { state: replay.state, position: replay.position, length: replay.length };
        },
    },
});
