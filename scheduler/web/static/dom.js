// The few things that the page does with its elements. Texts are set as text alone, never as markup.
import { STATES, BAR, indexOf } from "./states.js";
import { count, plain } from "./format.js";

/**
 * Make an element. `class`, `on*` functions, `hidden` and the like are set as properties where they are; others as attributes.
 * @param {string} tag @param {Record<string, any>} [props] @param {...any} children nodes, texts, and lists of them; what is null or false is left out @returns {any}
 */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat(Infinity).filter(isShown).map(asNode));
  return made;
}

/** @param {any} child */
function isShown(child) { return child !== null && child !== undefined && child !== false; }
/** @param {any} child */
function asNode(child) { return child instanceof Node ? child : document.createTextNode(String(child)); }

/** Replace what is in an element. @param {Element} parent @param {...any} children as those of `el` */
export function fill(parent, ...children) { parent.replaceChildren(...children.flat(Infinity).filter(isShown).map(asNode)); }

/** Set a text only where it differs: nothing is laid out again, and nothing is read out again. @param {Element} element @param {string} text */
export function say(element, text) { if (element.textContent !== text) element.textContent = text; }

/** A word with the sign and the colour of a state. @param {{word: string, sign: string, css: string}} state */
export function badge(state) {
  return el("span", { class: `badge s-${state.css}` }, el("span", { class: "sign", "aria-hidden": "true" }, state.sign), state.word);
}

/** Bar of components by state; told as one text. @param {Record<string, number>} counts @param {number} total */
export function bar(counts, total) {
  const made = el("span", { class: "bar", role: "img" });
  showBar(made, counts, total);
  return made;
}

/** @param {HTMLElement} element @param {Record<string, number>} counts @param {number} total */
export function showBar(element, counts, total) {
  const parts = BAR.filter((name) => counts[name] > 0);
  while (element.children.length < parts.length) element.append(el("i"));
  while (element.children.length > parts.length) element.lastElementChild?.remove();
  parts.forEach((name, at) => {
    const part = /** @type {HTMLElement} */ (element.children[at]);
    part.className = `fill-${name}`;
    part.style.setProperty("flex-grow", String(counts[name] / Math.max(total, 1)));
  });
  const told = parts.map((name) => `${count(counts[name])} ${STATES[indexOf(name)].word}`).join(", ");
  element.setAttribute("aria-label", told || "nothing to do");
  element.title = told;
}

/** Rows by key: those that stay are changed, not made again, so focus and scrolling stay. */
export class Rows {
  /** @param {Element} parent @param {(item: any) => {root: Element, update: (item: any) => void}} make */
  constructor(parent, make) {
    this.parent = parent;
    this.make = make;
    /** @type {Map<string, {root: Element, update: (item: any) => void}>} */
    this.known = new Map();
  }

  /** Make all rows anew: their keys mean others now. */
  forget() {
    this.known.clear();
    this.parent.replaceChildren();
  }

  /** @param {any[]} items @param {(item: any) => string} key */
  show(items, key) {
    const gone = new Set(this.known.keys());
    let before = this.parent.firstElementChild;
    for (const item of items) {
      const name = key(item);
      let row = this.known.get(name);
      if (!row) this.known.set(name, row = this.make(item));
      gone.delete(name);
      row.update(item);
      if (row.root === before) before = before.nextElementSibling;
      else this.parent.insertBefore(row.root, before);
    }
    for (const name of gone) {
      this.known.get(name)?.root.remove();
      this.known.delete(name);
    }
  }
}

/** Text of an id, which may say anything, for one line. @param {unknown} id */
export function idText(id) { return plain(id, 200); }

/** Call at most once in `pause` ms, with the last arguments. @template {any[]} T @param {number} pause @param {(...args: T) => void} action */
export function debounced(pause, action) {
  let timer = 0;
  return (/** @type {T} */ ...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...args), pause);
  };
}
