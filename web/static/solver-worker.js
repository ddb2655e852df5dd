// The search of a challenge on a thread of its own, so that the page stays at hand. It is told a challenge once, says
// now and then how far it is, and at last the number, or `null` if there is none. Who wants it no longer ends the thread.

import { Search } from './solver.js';

/** Numbers between two words about how far it is. */
const STEP = 8192;

/** @type {{onmessage: ((event: MessageEvent) => void) | null, postMessage(message: unknown): void}} */
const worker = /** @type {any} */ (globalThis);

worker.onmessage = ({ data }) => {
    const search = new Search(data);
    /** @type {number | null} */
    let number = null;
    while (number === null && !search.over) {
        worker.postMessage({ progress: search.progress });
        number = search.run(STEP);
    }
    worker.postMessage({ number });
};
