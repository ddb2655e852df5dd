// The report: times in the reader's own zone, and while more is to come, the newest figures. Without this the page says
// the same in UTC and reloads as a whole.

import { locale, useTable } from './text.js';

/** How far apart pages that were opened at the same moment ask, as a share of the time between. */
const JITTER = 0.2;

useTable({}, document.documentElement.lang === 'ar' ? 'ar' : 'en');
const format = new Intl.DateTimeFormat(locale(), {
    hour: 'numeric',
    minute: '2-digit',
    second: '2-digit',
    timeZoneName: 'short',
});

/**
 * Adds to each moment what the reader's clock showed.
 * @param {ParentNode} within
 */
function localize(within) {
    for (const element of /** @type {NodeListOf<HTMLTimeElement>} */ (within.querySelectorAll('time[datetime]'))) {
        const at = new Date(element.dateTime);
        if (Number.isNaN(at.getTime()) || at.getTimezoneOffset() === 0) {
            continue;
        }
        const own = document.createElement('bdi');
        own.className = 'own';
        own.textContent = ` (${format.format(at)})`;
        element.after(own);
    }
}

/** Puts the newest figures in place of those that are shown; whether more are to come. */
async function refresh() {
    const response = await fetch(location.href);
    const fresh = new DOMParser().parseFromString(await response.text(), 'text/html').getElementById('main');
    const shown = document.getElementById('main');
    if (!fresh || !shown) {
        return true;
    }
    // What the reader had opened stays open, and where it was.
    const opened = [...shown.querySelectorAll('details[open]')].map((details) => {
        return { id: details.id, scrolled: details.querySelector('.scroll')?.scrollTop ?? 0 };
    });
    const focused = document.activeElement?.closest('summary')?.parentElement?.id;
    localize(fresh);
    shown.replaceWith(document.adoptNode(fresh));
    for (const { id, scrolled } of opened) {
        const details = document.getElementById(id);
        details?.setAttribute('open', '');
        details?.querySelector('.scroll')?.scrollTo(0, scrolled);
    }
    if (focused) {
        document.getElementById(focused)?.querySelector('summary')?.focus({ preventScroll: true });
    }
    return fresh.dataset.every !== undefined;
}

async function follow() {
    const every = Number(document.getElementById('main')?.dataset.every ?? 0) * 1000;
    let more = every > 0;
    while (more) {
        await new Promise((resolve) => setTimeout(resolve, every * (1 + JITTER * Math.random())));
        // A page that nobody sees is not asked for.
        if (document.hidden) {
            continue;
        }
        try {
            more = await refresh();
        } catch (error) {
            console.warn('minassa: no newer figures', error);
        }
    }
}

localize(document);
follow();
