// The graph of a build in typed arrays: places, edges both ways, states, and what is folded where. Pure.
import { STATES, indexOfLetter } from "./states.js";

/** @typedef {import("./view.js").Box} Box */
/** @typedef {{wave: number, type: number, box: Box, counts: Uint32Array, total: number}} Fold components of one type in one wave */

const CELL_X = 200, CELL_Y = 38; // px at scale 1, from one component to the next
const WIDTH = 164, HEIGHT = 28; // px at scale 1, of a component

export class Model {
  /** @param {any} layout what the service answers to a question for the layout */
  constructor(layout) {
    /** @type {string[]} */
    this.ids = layout.ids;
    /** @type {string[]} */
    this.types = layout.types;
    /** @type {string[]} */
    this.actions = layout.actions;
    this.size = this.ids.length;
    this.type = Uint16Array.from(layout.type);
    this.action = Uint8Array.from(layout.action);
    this.wave = Uint32Array.from(layout.wave);
    this.x = Float32Array.from(layout.x, (/** @type {number} */ x) => x * CELL_X);
    this.y = Float32Array.from(layout.y, (/** @type {number} */ y) => y * CELL_Y);
    this.w = WIDTH;
    this.h = HEIGHT;
    this.edges = Uint32Array.from(layout.edges);
    /** @type {number[]} */
    this.critical = layout.critical;
    this.isCritical = new Uint8Array(this.size);
    for (const index of this.critical) this.isCritical[index] = 1;
    this.state = new Uint8Array(this.size);
    this.needs = adjacency(this.edges, this.size, 1, 0);
    this.dependents = adjacency(this.edges, this.size, 0, 1);
    this.box = around(this.x, this.y);
    this.foldOf = new Uint32Array(this.size);
    /** @type {Fold[]} */
    this.folds = layout.folds.map((/** @type {any} */ fold, /** @type {number} */ at) => {
      for (const index of fold.members) this.foldOf[index] = at;
      return { wave: fold.wave, type: fold.type, box: boxOf(fold), counts: new Uint32Array(STATES.length), total: fold.members.length };
    });
    divide(this.folds);
    this.recount();
    /** @type {Map<string, number> | null} */
    this.byId = null;
  }

  /** @param {string} id */
  indexOf(id) {
    this.byId ??= new Map(this.ids.map((one, index) => [one, index]));
    return this.byId.get(id) ?? -1;
  }

  /** Take a snapshot of all states. @param {ArrayLike<string>} letters */
  setAll(letters) {
    for (let i = 0; i < this.size; i++) this.state[i] = indexOfLetter(letters[i]);
    this.recount();
  }

  /** Take the state of one component; returns whether it is news. @param {number} index @param {string} letter */
  set(index, letter) {
    const was = this.state[index], state = indexOfLetter(letter);
    if (index >= this.size || was === state) return false;
    this.state[index] = state;
    const { counts } = this.folds[this.foldOf[index]];
    counts[was]--;
    counts[state]++;
    return true;
  }

  recount() {
    for (const fold of this.folds) fold.counts.fill(0);
    for (let i = 0; i < this.size; i++) this.folds[this.foldOf[i]].counts[this.state[i]]++;
  }

  /** The next component from one, in the direction of an arrow: along an edge, or to the neighbour in its wave. @param {number} from @param {string} key */
  next(from, key) {
    if (key === "ArrowLeft") return nearest(this, from, this.needs.of(from));
    if (key === "ArrowRight") return nearest(this, from, this.dependents.of(from));
    const down = key === "ArrowDown";
    let best = -1, least = Infinity;
    for (let i = 0; i < this.size; i++) {
      const dy = down ? this.y[i] - this.y[from] : this.y[from] - this.y[i];
      if (this.wave[i] !== this.wave[from] || dy <= 0) continue;
      const far = dy + 4 * Math.abs(this.x[i] - this.x[from]);
      if (far < least) [best, least] = [i, far];
    }
    return best;
  }
}

/** @param {Model} model @param {number} from @param {ArrayLike<number>} among */
function nearest(model, from, among) {
  let best = -1, least = Infinity;
  for (let n = 0; n < among.length; n++) {
    const far = Math.hypot(model.x[among[n]] - model.x[from], model.y[among[n]] - model.y[from]);
    if (far < least) [best, least] = [among[n], far];
  }
  return best;
}

/**
 * Neighbours by component, in two arrays.
 * @param {Uint32Array} edges pairs @param {number} size @param {0|1} of end that is asked about @param {0|1} other
 */
function adjacency(edges, size, of, other) {
  const starts = new Uint32Array(size + 1);
  for (let e = 0; e < edges.length; e += 2) starts[edges[e + of] + 1]++;
  for (let i = 0; i < size; i++) starts[i + 1] += starts[i];
  const list = new Uint32Array(edges.length / 2), at = starts.slice();
  for (let e = 0; e < edges.length; e += 2) list[at[edges[e + of]]++] = edges[e + other];
  return { of: (/** @type {number} */ i) => list.subarray(starts[i], starts[i + 1]) };
}

/** Box of all components. @param {Float32Array} x @param {Float32Array} y @returns {Box} */
function around(x, y) {
  const box = { x0: Infinity, y0: Infinity, x1: -Infinity, y1: -Infinity };
  for (let i = 0; i < x.length; i++) {
    box.x0 = Math.min(box.x0, x[i] - WIDTH / 2);
    box.x1 = Math.max(box.x1, x[i] + WIDTH / 2);
    box.y0 = Math.min(box.y0, y[i] - HEIGHT / 2);
    box.y1 = Math.max(box.y1, y[i] + HEIGHT / 2);
  }
  return x.length ? box : { x0: 0, y0: 0, x1: 1, y1: 1 };
}

/** @param {{x: number, y: number, width: number, height: number}} fold @returns {Box} */
function boxOf({ x, y, width, height }) {
  return { x0: x * CELL_X, y0: y * CELL_Y, x1: (x + width) * CELL_X, y1: (y + height) * CELL_Y };
}

/** Give the types of a wave parts of its box below each other, by their numbers: they stand among each other in it. @param {Fold[]} folds */
function divide(folds) {
  /** @type {Map<number, Fold[]>} */
  const waves = new Map();
  for (const fold of folds) waves.set(fold.wave, [...(waves.get(fold.wave) ?? []), fold]);
  for (const among of waves.values()) {
    const total = among.reduce((sum, fold) => sum + fold.total, 0);
    const edge = (/** @type {"x0"|"y0"|"x1"|"y1"} */ side, /** @type {(...all: number[]) => number} */ most) => most(...among.map(({ box }) => box[side]));
    const box = { x0: edge("x0", Math.min), y0: edge("y0", Math.min), x1: edge("x1", Math.max), y1: edge("y1", Math.max) };
    let top = box.y0;
    for (const fold of among.sort((a, b) => b.total - a.total)) {
      const bottom = top + (box.y1 - box.y0) * fold.total / total;
      fold.box = { ...box, y0: top, y1: bottom };
      top = bottom;
    }
  }
}
