// Requests to our own servers, with a limit to their time and one kind of error.

/** An answer that is no success, or none at all. */
export class Problem extends Error {
    /**
     * @param {object} fields
     * @param {number} [fields.status] HTTP status; 0 if there was no answer.
     * @param {string} [fields.type] Last word of the problem's type (RFC 9457): its name in the text tables.
     * @param {string} [fields.detail] In the server's words, for the console.
     * @param {number | null} [fields.retryAfter] Seconds the server asks us to wait.
     * @param {any} [fields.body] The whole document, if there is one.
     */
    constructor({ status = 0, type = '', detail = '', retryAfter = null, body = null }) {
        super(detail || type || `status ${status}`);
        this.status = status;
        this.type = type;
        this.retryAfter = retryAfter;
        this.body = body;
    }

    /** Whether the server itself is away, rather than of another opinion. */
    get away() {
        return this.status === 0 || this.status >= 500;
    }
}

/**
 * @typedef {object} RequestOptions
 * @property {string} [method]
 * @property {string} [bearer] Secret for `Authorization`; never part of an address.
 * @property {unknown} [json] Body.
 * @property {string} [body] Body of another type.
 * @property {string} [type] Its type.
 * @property {number} [timeout] ms until the headers and a JSON body are there.
 * @property {AbortSignal} [signal]
 * @property {boolean} [keepalive] Also while the page goes away.
 * @property {RequestCache} [cache] Default: never answered from a cache without asking.
 */

/**
 * Sends a request.
 * @param {string | URL} address
 * @param {RequestOptions} options
 * @returns {Promise<Response>} A success.
 * @throws {Problem}
 */
export async function send(address, options = {}) {
    const { method = 'GET', bearer, json, timeout = 5000, keepalive = false, cache = 'no-cache' } = options;
    const body = json === undefined ? options.body : JSON.stringify(json);
    const type = json === undefined ? options.type : 'application/json';
    /** @type {Record<string, string>} */
    const headers = {};
    if (bearer) {
        headers.authorization = `Bearer ${bearer}`;
    }
    if (type) {
        headers['content-type'] = type;
    }
    const controller = new AbortController();
    const abort = () => controller.abort();
    options.signal?.addEventListener('abort', abort, { once: true });
    const timer = setTimeout(abort, timeout);
    /** @type {Response} */
    let response;
    try {
        response = await fetch(address, {
            method,
            headers,
            body,
            keepalive,
            signal: controller.signal,
            cache,
            credentials: 'same-origin',
        });
    } catch (error) {
        const timedOut = controller.signal.aborted && !options.signal?.aborted;
        throw new Problem({ type: timedOut ? 'timeout' : 'network', detail: String(error) });
    } finally {
        clearTimeout(timer);
    }
    if (!response.ok) {
        throw await problemOf(response);
    }
    return response;
}

/**
 * As `send`, for a JSON answer.
 * @param {string | URL} address
 * @param {RequestOptions} options
 * @returns {Promise<{status: number, body: any, date: number | null}>} `date`: the server's clock, ms since 1970,
 *   to the second.
 * @throws {Problem}
 */
export async function request(address, options = {}) {
    const response = await send(address, options);
    try {
        const date = Date.parse(response.headers.get('date') ?? '');
        return {
            status: response.status,
            body: await response.json(),
            date: Number.isNaN(date) ? null : date,
        };
    } catch (error) {
        throw new Problem({ type: 'network', detail: String(error) });
    }
}

/**
 * Reads a problem document (RFC 9457), or makes the best of anything else.
 * @param {Response} response
 * @returns {Promise<Problem>}
 */
export async function problemOf(response) {
    /** @type {any} */
    let body = null;
    try {
        body = await response.json();
    } catch {
        // Not every failure comes from us; the status must do.
    }
    return new Problem({
        status: response.status,
        type: problemName(body?.type),
        detail: String(body?.detail ?? body?.title ?? ''),
        retryAfter: retryAfter(response.headers.get('retry-after')),
        body,
    });
}

/**
 * @param {unknown} type A problem's type, an address.
 * @returns {string} Its last word, for example `unknown-event`.
 */
export function problemName(type) {
    if (typeof type !== 'string' || type === 'about:blank') {
        return '';
    }
    return type.split(/[/:#]/).pop() ?? '';
}

/**
 * @param {string | null} header
 * @returns {number | null} Seconds, 0–300. Dates, which our servers do not send, count as absent.
 */
export function retryAfter(header) {
    return header !== null && /^\d+$/.test(header.trim()) ? Math.min(300, Number(header)) : null;
}
