// How long the search of a challenge takes, in this machine's browser: on a thread of its own, and on the page's thread
// with its processor slowed down, which stands in for an old phone.
//
//     node --experimental-websocket web/tests/solver-times.mjs [--slower 6] [--runs 5]
//
// Needs Chromium, and node 20 or newer; talks to loopback only. Prints a line of Markdown for each step, in ms.

import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** `admission::challenge::NUMBERS_MAX`. */
const STEPS = [50_000, 100_000, 200_000];
const option = (name, otherwise) => {
    const at = process.argv.indexOf(`--${name}`);
    return at < 0 ? otherwise : Number(process.argv[at + 1]);
};
const [slower, runs] = [option('slower', 6), option('runs', 5)];
const place = fileURLToPath(new URL('../static/', import.meta.url));

// The modules under the policy that every page has.
const server = createServer(async (request, response) => {
    const name = request.url.slice(1);
    response.setHeader('content-security-policy', "default-src 'self'; connect-src *; object-src 'none'; base-uri 'none'");
    response.setHeader('content-type', name ? 'text/javascript; charset=utf-8' : 'text/html; charset=utf-8');
    response.end(/^[a-z-]+\.js$/.test(name) ? await readFile(join(place, name)) : '<!doctype html><title>times</title>');
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const profile = await mkdtemp(join(tmpdir(), 'minassa-times-'));
const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'];
const browser = spawn('chromium', [...flags, '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank'], {
    stdio: ['ignore', 'ignore', 'pipe'],
});

try {
    const page = await connect(await endpoint());
    await page('Page.navigate', { url: `http://127.0.0.1:${server.address().port}/` });
    await page('Runtime.evaluate', { expression: 'new Promise((done) => setTimeout(done, 500))', awaitPromise: true });
    const measure = async (rate, where, numbers) => {
        await page('Emulation.setCPUThrottlingRate', { rate });
        const times = [];
        for (let run = 0; run < runs; run++) {
            const expression = `(${where})(${numbers})`;
            const { result, exceptionDetails } = await page('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
            if (exceptionDetails) {
                throw new Error(JSON.stringify(exceptionDetails));
            }
            times.push(result.value);
        }
        await page('Emulation.setCPUThrottlingRate', { rate: 1 });
        return times.sort((a, b) => a - b);
    };
    const middle = (times) => times[times.length >> 1].toFixed(0);
    const most = (times) => times[times.length - 1].toFixed(0);
    console.log(`| maxnumber | thread: mean, longest | slowed ${slower}×: mean, longest | thread, slowed ${slower}×: longest |`);
    for (const numbers of STEPS) {
        const [half, all] = [await measure(1, apart, numbers / 2), await measure(1, apart, numbers)];
        const [slowHalf, slowAll] = [await measure(slower, here, numbers / 2), await measure(slower, here, numbers)];
        const slowApart = await measure(slower, apart, numbers);
        console.log(`| ${numbers} | ${middle(half)}, ${most(all)} | ${middle(slowHalf)}, ${most(slowAll)} | ${most(slowApart)} |`);
    }
} finally {
    browser.kill();
    server.close();
    await new Promise((resolve) => browser.once('exit', resolve));
    await rm(profile, { recursive: true, force: true });
}

/** Time of looking through all numbers, on a thread that is started for it. */
function apart(numbers) {
    return new Promise((resolve, reject) => {
        const salt = `${'0123456789abcdef'.repeat(2)}?expires=2000000120&after=2000000020&max=${numbers}&`;
        const began = performance.now();
        const worker = new Worker('/solver-worker.js', { type: 'module' });
        worker.onerror = (event) => reject(new Error(`no thread: ${event.message}`));
        worker.onmessage = ({ data }) => {
            if ('number' in data) {
                worker.terminate();
                resolve(performance.now() - began);
            }
        };
        worker.postMessage({ salt, challenge: '0'.repeat(64), maxnumber: numbers });
    });
}

/** The same on the page's thread. */
async function here(numbers) {
    const { Search } = await import('/solver.js');
    const salt = `${'0123456789abcdef'.repeat(2)}?expires=2000000120&after=2000000020&max=${numbers}&`;
    const began = performance.now();
    const search = new Search({ salt, challenge: '0'.repeat(64), maxnumber: numbers });
    while (!search.over) {
        search.run(8192);
    }
    return performance.now() - began;
}

/** Where the browser listens. @returns {Promise<string>} */
function endpoint() {
    return new Promise((resolve, reject) => {
        let text = '';
        browser.once('error', reject);
        browser.stderr.on('data', (bytes) => {
            text += bytes;
            const found = /DevTools listening on (ws:\S+)/.exec(text);
            if (found) {
                resolve(found[1]);
            }
        });
    });
}

/** Calls of the DevTools protocol, at the one page. */
async function connect(address) {
    const socket = new WebSocket(address);
    await new Promise((resolve, reject) => {
        socket.onopen = resolve;
        socket.onerror = reject;
    });
    const waiting = new Map();
    let id = 0;
    let sessionId;
    socket.onmessage = ({ data }) => {
        const { id, result, error } = JSON.parse(data);
        const answer = waiting.get(id);
        waiting.delete(id);
        answer?.(error ? Promise.reject(new Error(error.message)) : result);
    };
    const call = (method, params = {}) =>
        new Promise((resolve) => {
            waiting.set(++id, resolve);
            socket.send(JSON.stringify({ id, method, params, sessionId }));
        });
    const { targetInfos } = await call('Target.getTargets');
    const { targetId } = targetInfos.find(({ type }) => type === 'page');
    sessionId = (await call('Target.attachToTarget', { targetId, flatten: true })).sessionId;
    return call;
}
