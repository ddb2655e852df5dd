// Plays addresses and keeps account of how: stalls, jumps, and the distance from the moment that is being spoken.

/** Accounts of all players of this page, by name. */
export const accounts = {};

/** Milliseconds between two looks at a player. */
const LOOK = 100;

/**
 * Begins to play.
 * @param {string} name of the account
 * @param {string} address of a playlist
 * @param {object | null} settings of hls.js; null for the browser's own HLS
 */
export async function play(name, address, settings) {
    const audio = document.createElement("audio");
    document.body.append(audio);
    const account = { audio, began: 0, waits: [], seeks: [], errors: [], parts: 0, segments: 0, looks: [] };
    accounts[name] = account;
    const since = () => (account.began ? Math.round(performance.now() - account.began) : -1);
    audio.addEventListener("waiting", () => account.waits.push(since()));
    audio.addEventListener("seeking", () => account.seeks.push(since()));
    audio.addEventListener("error", () => account.errors.push(`${audio.error?.code} ${audio.error?.message}`));
    if (settings) {
        const hls = new window.Hls(settings);
        account.hls = hls;
        hls.on("hlsError", (_, data) => account.errors.push(`${data.details}${data.fatal ? ", fatal" : ""} ${data.response?.code ?? ""}`));
        hls.on("hlsFragLoaded", (_, data) => (data.part ? account.parts++ : account.segments++));
        hls.loadSource(address);
        hls.attachMedia(audio);
    } else {
        audio.src = address;
    }
    setInterval(() => account.looks.push([performance.now(), audio.currentTime, behind(account)]), LOOK);
    await audio.play();
}

/** Seconds that what is heard lies behind the wall clock, by the playlist's dates; NaN if they are not told. */
function behind(account) {
    const heard = account.hls?.playingDate;
    return heard ? (Date.now() - heard.getTime()) / 1000 : NaN;
}

/** Whether a player plays. */
export const plays = (name) => accounts[name].audio.currentTime > 0 && !accounts[name].audio.paused;

/** Forgets how a player began: its account counts from now. */
export function begin(name) {
    Object.assign(accounts[name], { began: performance.now(), waits: [], seeks: [], looks: [] });
}

/** What a player's account says. */
export function told(name) {
    const { waits, seeks, errors, parts, segments, looks } = accounts[name];
    const [first, last] = [looks[0], looks.at(-1)];
    // Longest time in which playback did not move, from look to look.
    let still = 0;
    let moved = first;
    for (const look of looks) {
        if (look[1] > moved[1]) moved = look;
        still = Math.max(still, look[0] - moved[0]);
    }
    const behinds = looks.map((look) => look[2]).filter((value) => !Number.isNaN(value));
    return {
        elapsed: (last[0] - first[0]) / 1000,
        played: last[1] - first[1],
        still,
        waits,
        seeks,
        errors,
        parts,
        segments,
        behind: behinds.length ? behinds : null,
    };
}
