// Small helpers around the document.

/**
 * The element with an id that the page must have.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function byId(id, type) {
    const element = document.getElementById(id);
    if (!(element instanceof type)) {
        throw new Error(`the page has no ${type.name} #${id}`);
    }
    return element;
}

/**
 * Sets a text only if it differs, so that screen readers are not told the same twice.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
    if (element.textContent !== text) {
        element.textContent = text;
    }
}

/**
 * @param {HTMLElement} element
 * @param {boolean} visible
 */
export function show(element, visible) {
    if (element.hidden === visible) {
        element.hidden = !visible;
    }
}

/**
 * Puts words that a person wrote into an element, in their own language and direction.
 * @param {HTMLElement} element
 * @param {{text: string, lang: string}} words
 */
export function setWords(element, words) {
    setText(element, words.text);
    element.lang = words.lang;
    element.dir = 'auto';
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} content
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, attributes = {}, content = []) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        element.setAttribute(name, value);
    }
    element.append(...content);
    return element;
}
