// Tests of the modules that need no document: `run()` imports them from where they are served and reports.
//
//     const { run } = await import('/tests/unit.js');
//     const { passed, failed, messages } = await run('/assets/');

/** @type {{name: string, test: (load: (module: string) => Promise<any>) => Promise<void>}[]} */
const tests = [];
/** @param {string} name @param {(load: (module: string) => Promise<any>) => Promise<void>} test */
const test = (name, test) => tests.push({ name, test });

/**
 * @param {string} [base] Where the modules are; by default beside this folder.
 * @returns {Promise<{passed: number, failed: number, messages: string[]}>}
 */
export async function run(base = '../static/') {
    const report = { passed: 0, failed: 0, messages: /** @type {string[]} */ ([]) };
    const load = (/** @type {string} */ module) => import(new URL(module, new URL(base, import.meta.url)).href);
    for (const { name, test } of tests) {
        try {
            await test(load);
            report.passed++;
        } catch (error) {
            report.failed++;
            report.messages.push(`${name}: ${/** @type {Error} */ (error).message}`);
        }
    }
    return report;
}

/** @param {unknown} actual @param {unknown} expected @param {string} [what] */
function same(actual, expected, what = '') {
    const [a, b] = [actual, expected].map((value) => JSON.stringify(value));
    if (a !== b) {
        throw new Error(`${what} ${a} is not ${b}`);
    }
}

/** @param {boolean} value @param {string} what */
function ok(value, what) {
    if (!value) {
        throw new Error(what);
    }
}

/** @param {() => unknown} act @param {string} what */
function throws(act, what) {
    try {
        act();
    } catch {
        return;
    }
    throw new Error(`${what} was accepted`);
}

// Bytes, written by hand after ISO/IEC 14496-12.

/** @param {number} value */
const u32 = (value) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
/** @param {string} text */
const ascii = (text) => [...text].map((letter) => letter.charCodeAt(0));
/** @param {string} type @param {number[]} body */
const box = (type, body) => [...u32(body.length + 8), ...ascii(type), ...body];
/** @param {number} decodeTime @param {number} frames @param {number} sequence */
function moof(sequence, decodeTime, frames) {
    const tfdt = box('tfdt', [1, 0, 0, 0, ...u32(Math.floor(decodeTime / 2 ** 32)), ...u32(decodeTime % 2 ** 32)]);
    const trun = box('trun', [0, 0, 0, 1, ...u32(frames), ...u32(0)]);
    const tfhd = box('tfhd', [0, 2, 0, 0, ...u32(1)]);
    return box('moof', [
        ...box('mfhd', [0, 0, 0, 0, ...u32(sequence)]),
        ...box('traf', [...tfhd, ...tfdt, ...trun]),
    ]);
}
/** @param {number} number */
const partBytes = (number) => [...moof(number + 1, number * 23040, 24), ...box('mdat', [1, 2, 3])];
/** @param {string} json */
const status = (json) =>
    box('emsg', [
        ...[1, 0, 0, 0, ...u32(48000), ...u32(0), ...u32(24000), ...u32(0xffffffff), ...u32(7)],
        ...[...ascii('urn:minassa:status:1'), 0, 0, ...ascii(json)],
    ]);
const init = [...box('ftyp', ascii('iso6')), ...box('moov', [9, 9])];
/** @param {number} number */
const part = (number) => ({ number, start: number * 0.48, end: (number + 1) * 0.48, bytes: new Uint8Array(1) });

test('a stream is cut alike however it arrives', async (load) => {
    const { StreamSplitter } = await load('boxes.js');
    const lead = box('uuid', [4, 4]);
    const stream = new Uint8Array([
        ...[...init, ...status('{"s":"live"}'), ...partBytes(7), ...status('{}'), ...lead, ...partBytes(8)],
    ]);
    for (const step of [1, 2, 3, 7, 50, 1000, stream.length]) {
        const splitter = new StreamSplitter();
        const items = [];
        for (let at = 0; at < stream.length; at += step) {
            items.push(...splitter.push(stream.subarray(at, at + step)));
        }
        same(
            items.map((item) => item.kind),
            ['init', 'event', 'part', 'event', 'part'],
            `step ${step}`,
        );
        same([...items[0].bytes], init);
        same([...items[2].part.bytes], partBytes(7));
        same([...items[4].part.bytes], [...lead, ...partBytes(8)]);
        same([items[4].part.number, items[4].part.start], [8, (8 * 23040) / 48000]);
        ok(Math.abs(items[4].part.end - 9 * 0.48) < 1e-9, 'end');
        const { scheme, value, id, time, message } = items[1].event;
        same([scheme, value, id, time], ['urn:minassa:status:1', '', 7, 0.5]);
        same(new TextDecoder().decode(message), '{"s":"live"}');
    }
});

test('times beyond 32 bits are exact', async (load) => {
    const { parsePart } = await load('boxes.js');
    const decodeTime = 1795000000 * 48000;
    const parsed = parsePart(new Uint8Array([...moof(0xffffffff, decodeTime, 24), ...box('mdat', [])]));
    same([parsed.number, parsed.start], [0xfffffffe, 1795000000]);
});

test('damage is refused', async (load) => {
    const { StreamSplitter, parsePart } = await load('boxes.js');
    const cases = {
        'a size of 7': [0, 0, 0, 7, ...ascii('free')],
        'a size of 0': [0, 0, 0, 0, ...ascii('mdat')],
        'a huge size': [127, 0, 0, 0, ...ascii('mdat')],
        'mdat alone': box('mdat', [1]),
        'moov alone': box('moov', [1]),
        'two moofs': [...moof(1, 0, 24), ...moof(2, 0, 24)],
        'an empty moof': [...box('moof', []), ...box('mdat', [])],
        'no frames': [...moof(1, 0, 0), ...box('mdat', [])],
        'no number': [...moof(0, 0, 24), ...box('mdat', [])],
        'a box too large for its parent': [...box('moof', [0, 0, 1, 0, ...ascii('traf')]), ...box('mdat', [])],
        'an emsg without ends': box('emsg', [1, ...Array(23).fill(0), ...ascii('abc')]),
    };
    for (const [what, bytes] of Object.entries(cases)) {
        throws(() => new StreamSplitter().push(new Uint8Array(bytes)), what);
    }
    throws(() => parsePart(new Uint8Array(box('mdat', []))), 'a part without moof');
    // Whatever the bytes are, it ends with an answer or a refusal.
    let seed = 1;
    const whole = [...init, ...partBytes(3), ...status('{}')];
    for (let round = 0; round < 2000; round++) {
        const bytes = Uint8Array.from(whole);
        for (let flips = 0; flips < 4; flips++) {
            seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
            bytes[seed % bytes.length] = seed >>> 24;
        }
        try {
            new StreamSplitter().push(bytes);
        } catch (error) {
            ok(/^(FormatError|Error)$/.test(/** @type {Error} */ (error).name), `${error}`);
            ok(!(error instanceof RangeError) && !(error instanceof TypeError), `round ${round}: ${error}`);
        }
    }
});

test('an emsg of another version is skipped', async (load) => {
    const { StreamSplitter } = await load('boxes.js');
    const bytes = new Uint8Array([...box('emsg', Array(40).fill(0)), ...partBytes(1)]);
    same(
        new StreamSplitter().push(bytes).map((/** @type {any} */ item) => item.kind),
        ['part'],
    );
});

test('the ring keeps the newest minute in order', async (load) => {
    const { Ring } = await load('ring.js');
    const ring = new Ring(3);
    same(ring.newest, null);
    same(
        [5, 7, 6, 7, 4].map((number) => ring.put(part(number))),
        [true, true, true, false, false],
    );
    same(
        ring.after(0).map((/** @type {any} */ { number }) => number),
        [5, 6, 7],
    );
    ok(ring.put(part(9)), 'a hole is allowed');
    same([ring.size, ring.newest.number, ring.has(5), ring.has(7)], [2, 9, false, true]);
    same(
        ring.after(8 * 0.48).map((/** @type {any} */ { number }) => number),
        [9],
    );
    ring.clear();
    ok(ring.put(part(1)) && ring.newest.number === 1, 'begins anew');
});

test('delays grow, stay within bounds and are never the same for all', async (load) => {
    const { Backoff, jittered } = await load('backoff.js');
    for (const random of [() => 0, () => 0.999]) {
        const backoff = new Backoff({ random });
        const delays = Array.from({ length: 12 }, () => backoff.next());
        ok(delays[0] >= 50 && delays[0] <= 250, `first ${delays[0]}`);
        delays.slice(1).forEach((delay, at) => {
            const ceiling = Math.min(2000, 200 * 2 ** at);
            ok(delay >= ceiling / 2 && delay <= ceiling, `delay ${at + 1}: ${delay}`);
        });
        backoff.reset();
        ok(backoff.next() <= 250, 'soon again');
    }
    same([jittered(100, () => 0), jittered(100, () => 1)], [75, 125]);
});

test('silence is what stands still', async (load) => {
    const { SilenceWatch } = await load('backoff.js');
    const watch = new SilenceWatch(500);
    const samples = /** @type {[number, number][]} */ ([
        [1, 0],
        [1, 499],
        [2, 500],
        [2, 999],
        [2, 1000],
        [3, 1100],
    ]);
    same(
        samples.map(([count, now]) => watch.sample(count, now)),
        [false, false, false, false, true, false],
    );
});

test('a nap can be cut short', async (load) => {
    const { Nap } = await load('backoff.js');
    const nap = new Nap();
    const sleep = nap.sleep(60000);
    nap.wake();
    same(await sleep, true);
    same(await nap.sleep(1), false);
});

test('what is ahead in a buffer', async (load) => {
    const { outlook } = await load('player.js');
    const ranges = [
        { start: 1, end: 2 },
        { start: 3, end: 5 },
    ];
    same(outlook([], 1), { ahead: 0, next: null });
    same(outlook(ranges, 0.5), { ahead: 0, next: 1 });
    same(outlook(ranges, 1.5), { ahead: 0.5, next: 3 });
    same(outlook(ranges, 2), { ahead: 0, next: 3 });
    same(outlook(ranges, 4), { ahead: 1, next: null });
    same(outlook(ranges, 5), { ahead: 0, next: null });
});

const answer = {
    ticket: 'abc',
    push: 'http://talk.example:8081/t/abc/live/show/',
    hls: 'http://talk.example:8083/t/abc/live/show/index.m3u8',
    tier: 2,
    expires: '2026-11-22T20:00:00Z',
};

test('a ticket is used while it is good', async (load) => {
    const { Tickets, Waiting } = await load('tickets.js');
    const { Problem } = await load('api.js');
    let now = Date.parse('2026-11-22T19:00:00Z');
    let asked = 0;
    /** @type {() => any} */
    let control = () => ({ status: 200, body: answer });
    const tickets = new Tickets('show', {
        now: () => now,
        request: async () => {
            asked++;
            return control();
        },
    });
    const push = async () => (await tickets.current()).push;
    const failing = (/** @type {any} */ problem) => () => {
        throw new Problem(problem);
    };
    same(await push(), answer.push);
    same([(await tickets.current()).tier, tickets.files], [2, 'http://talk.example:8083/']);
    same((await tickets.current()).files, 'http://talk.example:8083/t/abc/live/show/');
    same(asked, 1, 'asked');
    // Control is dead: nobody who has a ticket notices, and without one there is the plain door.
    control = failing({ type: 'timeout' });
    same(await push(), answer.push);
    now = Date.parse('2026-11-22T19:59:58Z');
    same(await push(), 'http://talk.example:8081/live/show/');
    tickets.refused();
    control = failing({ status: 503 });
    same([await push(), tickets.files], ['http://talk.example:8081/live/show/', 'http://talk.example:8083/']);
    control = failing({ status: 404 });
    await tickets.current().then(
        () => ok(false, 'a refusal is an answer'),
        (/** @type {any} */ error) => same(error.status, 404),
    );
    control = () => ({ status: 202, body: { place: 12, retry_after: 3 } });
    await tickets.current().then(
        () => ok(false, 'the waiting room is no place'),
        (/** @type {any} */ error) => {
            ok(error instanceof Waiting, 'waits');
            same([error.seconds, error.place], [3, 12]);
        },
    );
    control = () => ({ status: 200, body: { nonsense: true } });
    same(await push(), 'http://talk.example:8081/live/show/', 'nonsense is no ticket:');
});

test('a ticket is renewed in time, and what cannot be renewed is used to its end', async (load) => {
    const { Tickets } = await load('tickets.js');
    const { Problem } = await load('api.js');
    let now = Date.parse('2026-11-22T19:00:00Z');
    /** @type {any[]} */
    const shown = [];
    /** @type {() => any} */
    let control = () => ({ status: 200, body: answer });
    const tickets = new Tickets('show', {
        now: () => now,
        request: async (/** @type {string} */ _address, /** @type {any} */ { json }) => {
            shown.push(json);
            return control();
        },
        room: { token: null, look: async () => null, keep() {}, leave() {} },
    });
    await tickets.current();
    now += 29 * 60000;
    await tickets.current();
    same(shown, [{}], 'before half of its life');
    now += 20 * 60000;
    control = () => {
        throw new Problem({ type: 'timeout' });
    };
    same((await tickets.current()).push, answer.push, 'not renewed:');
    same(shown.at(-1), { ticket: 'abc' });
    await tickets.current();
    same(shown.length, 2, 'not again at once:');
    control = () => ({ status: 200, body: { ...answer, ticket: 'def', expires: '2026-11-22T21:00:00Z' } });
    now += 2 * 60000;
    await tickets.current();
    same(shown.length, 3);
    await tickets.current();
    same(shown.length, 3, 'renewed:');
});

test('a place in the waiting room leads to a ticket', async (load) => {
    const { Tickets, Waiting } = await load('tickets.js');
    const { Room } = await load('room.js');
    /** @type {any} */
    let queue = { admitted_through: 2 ** 52 + 100, admitted: 100, waiting: 5000, rate: 10, level: 4, state: 'moving' };
    /** @type {string[]} */
    const asked = [];
    const kept = new Map();
    const request = async (/** @type {string} */ address, /** @type {any} */ { json } = {}) => {
        asked.push(json ? `ticket ${json.token ?? 'none'}` : address.split('/').pop() ?? '');
        if (!json) {
            return { status: 200, body: queue, date: null };
        }
        const wait = { token: 'tok', early: false, line: 700, place: 600, low_s: 40, high_s: 95, retry_after: 10, state: 'moving' };
        return queue.admitted_through > 2 ** 52 + 700
            ? { status: 200, body: answer, date: null }
            : { status: 202, body: wait, date: null };
    };
    const storage = {
        getItem: (/** @type {string} */ key) => kept.get(key) ?? null,
        setItem: (/** @type {string} */ key, /** @type {string} */ value) => void kept.set(key, value),
        removeItem: (/** @type {string} */ key) => void kept.delete(key),
    };
    const make = () => new Tickets('show', { request, room: new Room('show', { request, storage }) });
    const waits = async (/** @type {any} */ tickets) => {
        const error = await tickets.current().then(
            () => null,
            (/** @type {any} */ why) => why,
        );
        ok(error instanceof Waiting, 'waits');
        return [error.place, error.low, error.high, error.seconds];
    };
    same(await waits(make()), [600, 40, 95, 10], 'as answered:');
    // Another page of the same browser: the place is kept, and computed here.
    const tickets = make();
    same(await waits(tickets), [600, 40, 95, 10], 'as computed:');
    queue = { ...queue, admitted: 690, rate: 0, admitted_through: 2 ** 52 + 690 };
    same(await waits(tickets), [10, null, null, 10], 'nothing moves:');
    same(asked, ['ticket none', 'queue.json', 'queue.json']);
    queue = { ...queue, admitted: 701, rate: 10, admitted_through: 2 ** 52 + 701 };
    same((await tickets.current()).push, answer.push);
    same(asked.slice(3), ['queue.json', 'ticket tok']);
});

test('ranks and places in the draw are those of the server', async (load) => {
    const { Room, placeOfRank, rankOf } = await load('room.js');
    const draw = {
        key: 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8',
        allowance: 64,
        light: 66,
        knots: [[65, 130], [1000, 1065]],
        shards: 1,
    };
    same([rankOf(776928540, undefined, 64), rankOf(776928540, 1000, 64)], [776928540, 12139508437]);
    const places = [0, 2 ** 31, 2 ** 32, 12139508437, 2 ** 52].map((rank) => placeOfRank(rank, draw));
    same(places, [0, 97, 194, 311, 1131]);
    /** @type {Record<string, any>} */
    const files = {
        'queue.json': { admitted_through: 0, admitted: 0, waiting: 1131, rate: 1, level: 4, state: 'gathering' },
        'page.json': draw,
        'heavy-0.json': [[7, 65], [9, 1000]],
    };
    const room = new Room('show', {
        storage: null,
        random: () => 0,
        request: async (/** @type {string} */ address) => ({ status: 200, body: files[address.split('/').pop() ?? ''], date: null }),
    });
    same(await room.look(), null, 'without a place:');
    room.keep({ token: 'tok', early: true, id: 'c2l4dGVlbiBieXRlcyBpZA', tag: 9 });
    same((await room.look())?.drawn, false, 'gathering:');
    files['queue.json'] = { ...files['queue.json'], state: 'moving' };
    if (!globalThis.crypto?.subtle) {
        same(await room.look(), null, 'the server must say:');
        return;
    }
    same((await room.look())?.ahead, 311, 'drawn:');
    files['queue.json'] = { ...files['queue.json'], admitted_through: 12139508438 };
    same((await room.look())?.turn, true, 'turn:');
});

/** As control answers it; the number is 798, by Python's hashlib. */
const asked = {
    type: 'urn:minassa:problem:challenge',
    algorithm: 'SHA-256',
    salt: '7369787465656e206279746573206964?expires=2000000120&after=2000000020&max=1000&',
    challenge: '05fbeadfa1dbfe472761725a327fd31049a062b8b62b8b6d75d54369be142bcf',
    maxnumber: 1000,
    signature: '739124b8e098f5a6f77caab4729b2eb0144db50a396f6aaa9d4f04f7cc33f503',
    waits_s: 20,
};
const never = () => new Promise(() => {});

test('the search finds what others hid', async (load) => {
    const { Search } = await load('solver.js');
    /** @param {any} challenge @param {number} step */
    const find = (challenge, step) => {
        const search = new Search(challenge);
        for (let found = null; ; ) {
            found = search.run(step);
            if (found !== null || search.over) {
                return found;
            }
        }
    };
    same([1, 7, 512, 5000].map((step) => find(asked, step)), [798, 798, 798, 798]);
    same(find({ ...asked, maxnumber: 797 }, 100), null, 'none:');
    // From the tests of ALTCHA's libraries, of which only the end is searched here.
    const theirs = { salt: '3065d108b2314f5ecc7e1207', challenge: 'aa9c8ec8057413dd8220e21e15ab54b095fb3c840601d44c39bece8d9df34529', maxnumber: 99999 };
    same(find({ ...theirs, salt: `${theirs.salt}9` }, 5000), 71813);
    // Every length of a salt, with each number of digits: one block, two, and the padding between them.
    if (globalThis.crypto?.subtle) {
        const hex = async (/** @type {string} */ text) => {
            const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
            return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
        };
        for (let length = 0; length < 140; length++) {
            const salt = 'é&'.repeat(70).slice(0, length);
            const number = [0, 9, 10, 99, 100, 123][length % 6];
            same(find({ salt, challenge: await hex(salt + number), maxnumber: 130 }, 50), number, `${length} letters:`);
        }
    }
    const search = new Search(asked);
    same([search.progress, search.over], [0, false]);
    search.run(500);
    ok(search.progress > 0.49 && search.progress < 0.51, 'half');
    for (const bad of [{}, { salt: 5 }, { challenge: 'xyz' }, { maxnumber: -1 }, { maxnumber: 'many' }, { maxnumber: 2 ** 32 }]) {
        throws(() => new Search({ ...(Object.keys(bad).length ? asked : {}), ...bad }), JSON.stringify(bad));
    }
});

test('a challenge is answered by work or by patience', async (load) => {
    const { Answering, encode, solveInSlices } = await load('challenge.js');
    const read = (/** @type {string} */ text) => JSON.parse(atob(text));
    const { algorithm, salt, challenge, signature } = asked;
    const solved = { algorithm, challenge, number: 798, salt, signature };
    same(read(encode(asked, 798)), solved);
    let answering = new Answering();
    let changes = 0;
    const changed = () => changes++;
    same(read(await answering.run(asked, { solve: solveInSlices, sleep: never, changed })), solved, 'in slices:');
    ok(changes > 0 && answering.progress > 0.5 && !answering.waits, 'tells how far it is');
    if (typeof Worker !== 'undefined') {
        same(read(await new Answering().run(asked, { sleep: never })), solved, 'on a thread of its own:');
    }
    // Whatever goes wrong with the work, the wait is enough; and what takes too long is not waited for.
    for (const solve of [async () => null, async () => Promise.reject(new Error('no')), never]) {
        answering = new Answering();
        /** @type {number[]} */
        const slept = [];
        const sleep = async (/** @type {number} */ ms) => {
            slept.push(ms);
            for (let turn = 0; turn < 10; turn++) {
                await null;
            }
        };
        same(read(await answering.run(asked, { solve, sleep })), { algorithm, challenge, salt, signature });
        same([slept, answering.waits], [[21000], solve !== never]);
    }
    // A task that no page would be given is not begun.
    const huge = { ...asked, maxnumber: 2 ** 40, waits_s: 1e9 };
    /** @type {number[]} */
    const slept = [];
    await new Answering().run(huge, { solve: () => ok(false, 'begun'), sleep: async (/** @type {number} */ ms) => void slept.push(ms) });
    same(slept, [121000]);
    // Given up: the work ends too.
    answering = new Answering();
    /** @type {AbortSignal | null} */
    let signal = null;
    const solve = (/** @type {any} */ _, /** @type {AbortSignal} */ given) => {
        signal = given;
        return never();
    };
    const running = answering.run(asked, { solve, sleep: never });
    answering.cancel();
    same(await running.catch((/** @type {any} */ error) => error.name), 'AbortError');
    ok(/** @type {any} */ (signal)?.aborted, 'ended');
    same(await answering.run(asked, { solve }).catch((/** @type {any} */ error) => error.name), 'AbortError');
});

test('a newcomer who is challenged answers and goes on', async (load) => {
    const { Tickets, Waiting } = await load('tickets.js');
    const { Problem } = await load('api.js');
    /** @type {any[]} */
    const shown = [];
    let challenges = 1;
    let changes = 0;
    /** @type {any} */
    let seen = null;
    const tickets = new Tickets('show', {
        room: { token: null, look: async () => null, keep() {}, leave() {} },
        request: async (/** @type {string} */ _, /** @type {any} */ { json }) => {
            shown.push(json);
            if (challenges-- > 0) {
                throw new Problem({ status: 401, type: 'challenge', body: asked });
            }
            return { status: 200, body: answer };
        },
        changed: () => changes++,
        answer: async (/** @type {any} */ answering, /** @type {any} */ challenge) => {
            seen = [tickets.answering === answering, challenge.salt];
            return 'found';
        },
    });
    same((await tickets.current()).push, answer.push);
    same(shown, [{}, { solution: 'found' }]);
    same([seen, tickets.answering, changes], [[true, asked.salt], null, 2]);
    // Asked anew (another network, a control that began anew) it answers anew, but not for ever.
    tickets.refused();
    challenges = 100;
    shown.length = 0;
    await tickets.current().then(
        () => ok(false, 'there was no way in'),
        (/** @type {any} */ why) => ok(why instanceof Waiting && why.seconds >= 10, 'waits'),
    );
    same(shown.length, 4);
});

test('doors learned elsewhere serve without control', async (load) => {
    const { Tickets } = await load('tickets.js');
    const { Problem } = await load('api.js');
    const tickets = new Tickets('show', {
        request: async () => {
            throw new Problem({ type: 'network' });
        },
    });
    ok(await tickets.current().then(() => false).catch(() => true), 'no door is known');
    tickets.learn({ push: 'http://h:8081', files: 'http://h:8083/' });
    same(await tickets.current(), {
        push: 'http://h:8081/live/show/',
        files: 'http://h:8083/live/show/',
        tier: 1,
        ticketed: false,
    });
});

/**
 * A stream against a scripted network.
 * @param {(module: string) => Promise<any>} load
 * @param {(address: URL, attempt: number) => Response | Promise<Response>} answer
 */
async function streamWith(load, answer) {
    const { Stream } = await load('stream.js');
    const { Ring } = await load('ring.js');
    const seen = { addresses: /** @type {string[]} */ ([]), parts: /** @type {number[]} */ ([]), refused: 0 };
    const ring = new Ring();
    /** @type {() => void} */
    let over = () => {};
    const ended = new Promise((resolve) => (over = () => resolve(null)));
    const place = { push: 'http://push/live/e/', files: 'http://files/live/e/', tier: 1, ticketed: true };
    const stream = new Stream({
        tickets: { current: async () => place, refused: () => seen.refused++ },
        ring,
        rendition: 'opus-48',
        random: () => 0,
        fetch: async (/** @type {URL} */ address) => {
            seen.addresses.push(address.href);
            return answer(address, seen.addresses.filter((seen) => seen.includes('.mp4')).length);
        },
        handlers: {
            init: () => {},
            part: (/** @type {any} */ part) => seen.parts.push(part.number),
            gone: () => {},
            status: () => {},
            connection: (/** @type {string} */ connection) => connection === 'ended' && over(),
        },
    });
    stream.start();
    await ended;
    // What was asked again may still be on its way.
    for (let turn = 0; turn < 20; turn++) {
        await new Promise((resolve) => setTimeout(resolve));
    }
    return { ...seen, counters: stream.counters };
}

const over = status('{"s":"ended"}');

test('a broken stream goes on after the last whole part', async (load) => {
    const result = await streamWith(load, (_, attempt) => {
        const half = partBytes(6).slice(0, 40);
        const bytes = attempt === 1 ? [...init, ...partBytes(4), ...partBytes(5), ...half] : [...init, ...partBytes(6), ...over];
        return new Response(new Uint8Array(bytes));
    });
    same(result.parts, [4, 5, 6]);
    same(result.addresses, ['http://push/live/e/opus-48.mp4', 'http://push/live/e/opus-48.mp4?from=6']);
    same([result.counters.reconnects, result.counters.parts_missed, result.counters.parts_received], [1, 0, 3]);
});

test('missing parts are asked for by number', async (load) => {
    const result = await streamWith(load, (address) => {
        if (address.pathname.endsWith('/6.m4s')) {
            return new Response(null, { status: 404 });
        }
        const again = /(\d+)\.m4s$/.exec(address.pathname);
        if (again) {
            return new Response(new Uint8Array(partBytes(Number(again[1]))));
        }
        return new Response(new Uint8Array([...init, ...partBytes(4), ...partBytes(8), ...partBytes(8), ...over]));
    });
    same(result.parts.slice(0, 2), [4, 8]);
    same(result.parts.slice(2).sort(), [5, 7]);
    const { parts_asked, parts_recovered, parts_missed, duplicates } = result.counters;
    same([parts_asked, parts_recovered, parts_missed, duplicates], [3, 2, 1, 1]);
    ok(result.addresses.includes('http://files/live/e/opus-48/5.m4s'), 'by number');
});

test('a hole of an hour is not asked for', async (load) => {
    const result = await streamWith(load, (address) => {
        return address.pathname.endsWith('.m4s')
            ? new Response(null, { status: 404 })
            : new Response(new Uint8Array([...init, ...partBytes(0), ...partBytes(7500), ...over]));
    });
    same([result.counters.parts_asked, result.counters.parts_missed], [16, 7499]);
});

test('refusals are met each in its way', async (load) => {
    const result = await streamWith(load, (_, attempt) => {
        if (attempt === 1) {
            return new Response(null, { status: 401 });
        }
        if (attempt === 2) {
            throw new TypeError('network');
        }
        if (attempt === 3) {
            return new Response(new Uint8Array(box('mdat', [1])));
        }
        return new Response(new Uint8Array([...init, ...partBytes(1), ...over]));
    });
    same([result.refused, result.counters.reconnects, result.parts], [1, 3, [1]]);
});

test('what is told becomes what is known', async (load) => {
    const { unknownEvent, withTold, withStatus, isLate, time, bilingual } = await load('event.js');
    const start = Date.parse('2026-11-22T19:00:00Z');
    let event = withTold(unknownEvent('show'), {
        title: { ar: 'حوار', en: 'Talk' },
        state: 'doors',
        starts_at: '2026-11-22T19:00:00Z',
        listeners: 12.7,
        level: 2,
    });
    same([event.title.ar, event.state, event.startsAt, event.listeners, event.level], ['حوار', 'doors', start, 12, 2]);
    same([isLate(event, start + 1000), isLate(event, start + 3000)], [false, true]);
    event = withStatus(event, { s: 'hold', l: 3, u: start + 5, m: { ar: 'أ', en: 'b' } });
    same([event.state, event.level, event.hold], ['hold', 3, { until: start + 5, message: { ar: 'أ', en: 'b' } }]);
    event = withStatus(event, { s: 'live', l: 0, n: 900 });
    same([event.hold, event.listeners, event.title.en], [null, 900, 'Talk']);
    event = withStatus(event, { s: 'ended' });
    same(withTold(event, { state: 'live' }).state, 'ended', 'the end is final:');
    same(withStatus(unknownEvent('e'), { s: 'nonsense', l: -1, n: 'x' }).state, null);
    same(withTold(event, null), event);
    same([time('nonsense'), time(null), time(NaN), time(10), time(start)], [null, null, null, 10000, start]);
    same([bilingual('x'), bilingual(7)], [{ ar: '', en: 'x' }, { ar: '', en: '' }]);
});

test('problems are named by their last word', async (load) => {
    const { problemName, retryAfter, problemOf } = await load('api.js');
    same(
        ['urn:minassa:problem:unknown-event', 'https://x/problems/full', 'about:blank', undefined].map(problemName),
        ['unknown-event', 'full', '', ''],
    );
    same(['3', ' 9999 ', 'Wed, 21 Oct 2015', null].map(retryAfter), [3, 300, null, null]);
    const problem = await problemOf(new Response('<html>', { status: 502 }));
    same([problem.status, problem.type, problem.away], [502, '', true]);
});

test('texts take values, plural forms and the other language', async (load) => {
    const text = await load('text.js');
    text.useTable({ a: 'x {one} {two}', 'n.one': '{count} only', 'n.other': '{count} of them' }, 'en');
    same([text.t('a', { one: '1' }), text.t('missing')], ['x 1 {two}', 'missing']);
    same([text.plural('n', 1), text.plural('n', 5)], ['1 only', '5 of them']);
    same(text.pick({ ar: 'ع', en: '' }), { text: 'ع', lang: 'ar' });
    same(text.pick({ ar: 'ع', en: 'e' }), { text: 'e', lang: 'en' });
    same([0, 65000, 3723000].map(text.stopwatch), ['0:00', '1:05', '1:02:03']);
    text.useTable({ 'n.two': 'اثنان', 'n.few': '{count} قليل' }, 'ar');
    same(text.plural('n', 2), 'اثنان');
    ok(text.plural('n', 3).endsWith(' قليل'), 'few');
    same(text.problemText({ type: 'nothing' }), 'problem.other');
});

test('a recording has its addresses', async (load) => {
    const { recordingAddresses } = await load('replay.js');
    same(recordingAddresses('http://h:8083/', 'show').best, 'http://h:8083/e/show/recording.opus-48.mp4');
});

test('the plain way follows what the browser can', async (load) => {
    const { plainSources } = await load('plain.js');
    same(
        plainSources(() => 'maybe').map((/** @type {any} */ { door }) => door),
        ['files', 'push'],
    );
    same(
        plainSources((/** @type {string} */ type) => (type === 'audio/mpeg' ? 'probably' : '')),
        [{ door: 'push', name: 'mp3-64.mp3' }],
    );
    same(plainSources(() => ''), []);
});

test('the delayed feed gives each part once, and the newest segments first', async (load) => {
    const { Delayed, playlist } = await load('delayed.js');
    const base = new URL('https://cdn.example/live/e/delayed/opus-24.m3u8');
    const lines = ['#EXTM3U', '#EXT-X-MEDIA-SEQUENCE:4', '#EXT-X-MAP:URI="opus-24/init-1.mp4"', '#EXTINF:15.36,'];
    const text = (/** @type {string[]} */ ...more) => [...lines, ...more, ''].join('\n');
    const read = playlist(text('opus-24/4.m4s', '#EXT-X-GAP', 'opus-24/5.m4s', 'opus-24/6.m4s', '#EXT-X-ENDLIST'), base);
    same(read.init, 'https://cdn.example/live/e/delayed/opus-24/init-1.mp4');
    same(read.segments.map(({ number }) => number), [4, 6], 'a gap is not asked for, and has its number:');
    same([read.ended, playlist('', base)], [true, { init: null, segments: [], ended: false }]);

    /** @type {string[]} */
    const asked = [];
    const init = new Uint8Array([...box('ftyp', [1]), ...box('moov', [2])]);
    const fetched = async (/** @type {URL} */ address) => {
        const name = address.pathname.split('/').pop() ?? '';
        asked.push(name);
        const number = Number(/^(\d+)\.m4s$/.exec(name)?.[1]);
        if (name.endsWith('.m3u8')) {
            const all = [0, 1, 2, 3, 4, 5].map((segment) => `opus-24/${segment}.m4s`);
            return new Response(text(...all, '#EXT-X-ENDLIST').replace('SEQUENCE:4', 'SEQUENCE:0'));
        }
        return new Response(name.startsWith('init') ? init : new Uint8Array([...partBytes(2 * number), ...partBytes(2 * number + 1)]));
    };
    /** @type {number[]} */
    const heard = [];
    let inits = 0;
    await new Promise((resolve) => {
        const delayed = new Delayed(
            {
                init: () => inits++,
                part: (/** @type {any} */ part) => {
                    heard.push(part.number);
                    if (part.number === 11) {
                        delayed.stop();
                        resolve(null);
                    }
                },
            },
            { fetch: fetched },
        );
        delayed.start('https://cdn.example/live/e/delayed.m3u8');
        delayed.start('https://cdn.example/live/e/delayed.m3u8');
    });
    same(asked, ['opus-24.m3u8', 'init-1.mp4', '3.m4s', '4.m4s', '5.m4s']);
    same([heard, inits], [[6, 7, 8, 9, 10, 11], 1]);
});

test('news are cut into lines', async (load) => {
    const { LineSplitter, LINE_MAX } = await load('watch.js');
    const splitter = new LineSplitter();
    same(
        ['{"a"', ':1}\n\n{"b":2}\r\n{', '}\n'].map((text) => splitter.push(text)),
        [[], ['{"a":1}', '{"b":2}'], ['{}']],
    );
    throws(() => splitter.push('x'.repeat(LINE_MAX + 1)), 'a line without an end');
});
