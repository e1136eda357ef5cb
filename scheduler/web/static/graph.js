// The graph of a build on a canvas.
import { STATES } from "./states.js";
import { count, plain } from "./format.js";
import { Surface, palette } from "./surface.js";
import { Grid, centred, kept, shownBox } from "./view.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./view.js").View} View */
/** @typedef {import("./view.js").Box} Box */

const NAMED = 11, FOLDED = 1.2; // px of height: from the first on components have names, under the other they are folded
const READABLE = 0.8; // scale that shows a component with its name
const MOST_EDGES = 5_000; // in a window; beyond that they would only be a grey area
const COST_EDGE = 3, COST_CARD = 40, COST_FOLD = 30;
const BATCH = 100; // edges between two looks at the time
const MOST_MARKS = 400; // edges of the component that is selected

/** How much of a component fits the screen. @param {number} height px @returns {"card" | "mark" | "fold"} */
export function detail(height) { return height >= NAMED ? "card" : height >= FOLDED ? "mark" : "fold"; }

/** Opacity of edges: many are drawn fainter; 0 beyond a number. @param {number} shown */
export function edgeOpacity(shown) { return shown > MOST_EDGES ? 0 : Math.min(0.7, 12 / Math.sqrt(shown + 1)); }

/** The graph as a scene of a `Surface`. */
export class Graph {
  /**
   * @param {HTMLElement} host @param {Model} model @param {string} help id
   * @param {{select: (index: number) => void, open: (index: number) => void, hint: (text: string, x: number, y: number) => void}} on
   */
  constructor(host, model, help, on) {
    this.model = model;
    this.on = on;
    this.box = model.box;
    this.selected = -1;
    this.showCritical = true;
    /** @type {number[]} */
    this.found = [];
    this.grid = new Grid(model.x, model.y, Math.max(model.w, model.h) * 2);
    this.colour = palette();
    this.surface = new Surface(host, this, `Graph of ${count(model.size)} components`, help);
  }

  /** Colours have changed. */
  repaint() {
    this.colour = palette();
    this.surface.refresh();
  }

  /** @param {number} index @param {boolean} show whether to move it into view */
  select(index, show) {
    this.selected = index;
    if (index >= 0 && show && !this.isReadable(index)) {
      const { view, width, height } = this.surface, k = Math.max(view.kx, READABLE);
      this.surface.show(centred({ ...view, kx: k, ky: k }, this.model.x[index], this.model.y[index], width, height));
    }
    this.surface.mark();
  }

  /** Whether the window shows a component with its name. @param {number} index */
  isReadable(index) {
    const { view, width, height } = this.surface;
    return detail(this.model.h * view.ky) === "card" && this.isShown(index, shownBox(view, width, height, -this.model.w * view.kx));
  }

  /** Mark what was searched for. @param {number[]} indices */
  find(indices) {
    this.found = indices;
    this.surface.mark();
  }

  /** @param {View} view @param {number} width @param {number} height */
  limit(view, width, height) {
    const all = Math.min(width / (this.box.x1 - this.box.x0), height / (this.box.y1 - this.box.y0));
    const k = Math.min(Math.max(view.kx, Math.min(all * 0.5, 0.5)), 3);
    if (k === view.kx) return kept(view, this.box, width, height);
    // What is in the middle stays there, where nothing more can be zoomed.
    const x = (width / 2 - view.tx) / view.kx, y = (height / 2 - view.ty) / view.ky;
    return kept(centred({ ...view, kx: k, ky: k }, x, y, width, height), this.box, width, height);
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {number} width @param {number} height @returns {Generator<number>} */
  *paint(ctx, view, width, height) {
    const shown = shownBox(view, width, height), level = detail(this.model.h * view.ky);
    if (level === "fold") {
      yield* this.paintFolds(ctx, view, shown);
      if (this.showCritical) yield this.paintCritical(ctx, view);
    } else {
      yield* this.paintEdges(ctx, view, shown);
      if (this.showCritical) yield this.paintCritical(ctx, view);
      yield* level === "card" ? this.paintCards(ctx, view, shown) : this.paintMarks(ctx, view, shown);
    }
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {Box} shown */
  *paintEdges(ctx, view, shown) {
    const { edges, x, y } = this.model, visible = [];
    for (let e = 0; e < edges.length; e += 2) {
      if (e % 20_000 === 19_998) yield 500;
      const a = edges[e], b = edges[e + 1];
      if (Math.max(x[a], x[b]) >= shown.x0 && Math.min(x[a], x[b]) <= shown.x1
        && Math.max(y[a], y[b]) >= shown.y0 && Math.min(y[a], y[b]) <= shown.y1) visible.push(e);
    }
    const opacity = edgeOpacity(visible.length);
    if (!opacity) return;
    ctx.strokeStyle = this.colour("edge");
    ctx.lineWidth = Math.min(1.25, Math.max(0.6, view.kx * 1.25));
    for (let from = 0; from < visible.length; from += BATCH) {
      ctx.globalAlpha = opacity;
      ctx.beginPath();
      for (const e of visible.slice(from, from + BATCH)) this.traceEdge(ctx, view, edges[e], edges[e + 1]);
      ctx.stroke();
      ctx.globalAlpha = 1;
      yield BATCH * COST_EDGE;
    }
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {number} a @param {number} b */
  traceEdge(ctx, view, a, b) {
    const { x, y, w } = this.model;
    const [from, to] = x[a] + w <= x[b] ? [x[a] + w / 2, x[b] - w / 2] : [x[a], x[b]];
    const x0 = from * view.kx + view.tx, y0 = y[a] * view.ky + view.ty, x1 = to * view.kx + view.tx, y1 = y[b] * view.ky + view.ty;
    ctx.moveTo(x0, y0);
    if (view.kx < 0.3) ctx.lineTo(x1, y1);
    else ctx.bezierCurveTo((x0 + x1) / 2, y0, (x0 + x1) / 2, y1, x1, y1);
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view */
  paintCritical(ctx, view) {
    const { critical } = this.model;
    ctx.strokeStyle = this.colour("critical");
    ctx.lineWidth = Math.max(1.5, Math.min(3, view.kx * 3));
    ctx.beginPath();
    for (let n = 1; n < critical.length; n++) this.traceEdge(ctx, view, critical[n - 1], critical[n]);
    ctx.stroke();
    return critical.length * COST_EDGE;
  }

  /** Components as small rectangles, those of a state after another. @param {CanvasRenderingContext2D} ctx @param {View} view @param {Box} shown */
  *paintMarks(ctx, view, shown) {
    /** @type {number[][]} */
    const groups = STATES.map(() => []);
    for (let i = 0; i < this.model.size; i++) if (this.isShown(i, shown)) groups[this.model.state[i]].push(i);
    yield this.model.size / 20;
    for (const [state, group] of groups.entries()) {
      for (let from = 0; from < group.length; from += 250) {
        ctx.fillStyle = this.colour(`s-${STATES[state].css}`);
        const to = Math.min(group.length, from + 250);
        for (let n = from; n < to; n++) this.paintMark(ctx, view, group[n]);
        yield to - from;
      }
    }
    if (this.showCritical) yield this.outlineCritical(ctx, view, shown);
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {number} i */
  paintMark(ctx, view, i) {
    const { x, y, w, h } = this.model;
    // Whole pixels: nothing has to be smoothed, and neighbours stay apart.
    const width = Math.max(2, Math.floor(w * view.kx)), height = Math.max(1, Math.floor(h * view.ky));
    ctx.fillRect(Math.round((x[i] - w / 2) * view.kx + view.tx), Math.round((y[i] - h / 2) * view.ky + view.ty), width, height);
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {Box} shown */
  outlineCritical(ctx, view, shown) {
    const { critical, x, y, w, h } = this.model;
    ctx.strokeStyle = this.colour("critical");
    ctx.lineWidth = 1.5;
    const among = critical.filter((i) => this.isShown(i, shown));
    for (const i of among) {
      const width = w * view.kx + 3, height = h * view.ky + 3;
      ctx.strokeRect(x[i] * view.kx + view.tx - width / 2, y[i] * view.ky + view.ty - height / 2, width, height);
    }
    return among.length * COST_EDGE;
  }

  /** Components with their names. @param {CanvasRenderingContext2D} ctx @param {View} view @param {Box} shown */
  *paintCards(ctx, view, shown) {
    for (let i = 0; i < this.model.size; i++) {
      if (!this.isShown(i, shown)) continue;
      this.paintCard(ctx, view, i);
      yield COST_CARD;
    }
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {number} i */
  paintCard(ctx, view, i) {
    const { model, colour } = this, state = STATES[model.state[i]];
    const width = model.w * view.kx, height = model.h * view.ky, edge = Math.max(4, Math.round(height * 0.8));
    const left = Math.round((model.x[i] - model.w / 2) * view.kx + view.tx), top = Math.round((model.y[i] - model.h / 2) * view.ky + view.ty);
    const critical = this.showCritical && model.isCritical[i];
    ctx.fillStyle = colour("panel");
    ctx.fillRect(left, top, width, height);
    ctx.fillStyle = colour(`s-${state.css}`);
    ctx.fillRect(left, top, edge, height);
    ctx.strokeStyle = critical ? colour("critical") : colour(`s-${state.css}`);
    ctx.lineWidth = critical ? 2 : 1;
    ctx.strokeRect(left + 0.5, top + 0.5, width - 1, height - 1);
    const pixels = Math.max(8, Math.min(13, height * 0.48));
    ctx.font = `${pixels}px ${colour("font")}`;
    ctx.textBaseline = "middle";
    ctx.textAlign = "center";
    ctx.fillStyle = colour("on-state");
    ctx.fillText(state.sign, left + edge / 2, top + height / 2 + 0.5);
    ctx.textAlign = "left";
    ctx.fillStyle = colour("text");
    const room = Math.floor((width - edge - 10) / (pixels * 0.58));
    ctx.fillText(shortened(model.ids[i], room), left + edge + 5, top + height / 2 + 0.5, width - edge - 8);
  }

  /** Components of a wave and a type as one area, divided by state. @param {CanvasRenderingContext2D} ctx @param {View} view @param {Box} shown */
  *paintFolds(ctx, view, shown) {
    for (const fold of this.model.folds) {
      const { box } = fold;
      if (box.x1 < shown.x0 || box.x0 > shown.x1 || box.y1 < shown.y0 || box.y0 > shown.y1) continue;
      const left = box.x0 * view.kx + view.tx, top = box.y0 * view.ky + view.ty;
      const width = Math.max(3, (box.x1 - box.x0) * view.kx - 1), height = Math.max(2, (box.y1 - box.y0) * view.ky - 1);
      let at = top;
      for (const [state, number] of fold.counts.entries()) {
        if (!number) continue;
        const part = height * number / fold.total;
        ctx.fillStyle = this.colour(`s-${STATES[state].css}`);
        ctx.fillRect(left, at, width, part);
        at += part;
      }
      if (width > 90 && height > 26) this.nameFold(ctx, fold, left, top, width, height);
      yield COST_FOLD;
    }
  }

  /** @param {CanvasRenderingContext2D} ctx @param {import("./model.js").Fold} fold @param {number} left @param {number} top @param {number} width @param {number} height */
  nameFold(ctx, fold, left, top, width, height) {
    const text = shortened(`${this.model.types[fold.type]} · ${count(fold.total)}`, Math.floor(width / 7));
    ctx.font = `12px ${this.colour("font")}`;
    ctx.textBaseline = "middle";
    ctx.textAlign = "center";
    const wide = ctx.measureText(text).width + 10;
    ctx.fillStyle = this.colour("panel");
    ctx.fillRect(left + (width - wide) / 2, top + height / 2 - 9, wide, 18);
    ctx.fillStyle = this.colour("text");
    ctx.fillText(text, left + width / 2, top + height / 2, width);
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {number[]} changed */
  touch(ctx, view, changed) {
    const level = detail(this.model.h * view.ky);
    if (level === "fold") return false;
    for (const i of changed) {
      if (level === "card") {
        this.paintCard(ctx, view, i);
      } else {
        ctx.fillStyle = this.colour(`s-${STATES[this.model.state[i]].css}`);
        this.paintMark(ctx, view, i);
      }
    }
    return true;
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {number} width @param {number} height */
  overlay(ctx, view, width, height) {
    const shown = shownBox(view, width, height);
    const found = this.found.filter((i) => this.isShown(i, shown)).slice(0, 2_000);
    this.outline(ctx, view, found, "found", 2);
    if (this.selected < 0) return;
    const { needs, dependents } = this.model, index = this.selected;
    ctx.strokeStyle = this.colour("accent");
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    for (const other of needs.of(index).subarray(0, MOST_MARKS)) this.traceEdge(ctx, view, other, index);
    for (const other of dependents.of(index).subarray(0, MOST_MARKS)) this.traceEdge(ctx, view, index, other);
    ctx.stroke();
    this.outline(ctx, view, [...needs.of(index).subarray(0, MOST_MARKS), ...dependents.of(index).subarray(0, MOST_MARKS)], "accent", 1);
    this.outline(ctx, view, [index], "accent", 3);
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {number[]} indices @param {string} name of the colour @param {number} line px */
  outline(ctx, view, indices, name, line) {
    const { x, y, w, h } = this.model;
    const width = Math.max(6, w * view.kx) + 2 * line, height = Math.max(6, h * view.ky) + 2 * line;
    ctx.strokeStyle = this.colour(name);
    ctx.lineWidth = line;
    for (const i of indices) ctx.strokeRect(x[i] * view.kx + view.tx - width / 2, y[i] * view.ky + view.ty - height / 2, width, height);
  }

  /** @param {number} i @param {Box} shown */
  isShown(i, shown) {
    const { x, y, w, h } = this.model;
    return x[i] + w / 2 >= shown.x0 && x[i] - w / 2 <= shown.x1 && y[i] + h / 2 >= shown.y0 && y[i] - h / 2 <= shown.y1;
  }

  /** Component at a point of the window, or -1. @param {number} px @param {number} py @param {View} view */
  at(px, py, view) {
    // What is small is still to be hit by a finger.
    const w = Math.max(this.model.w / 2, 4 / view.kx), h = Math.max(this.model.h / 2, 4 / view.ky);
    return this.grid.at((px - view.tx) / view.kx, (py - view.ty) / view.ky, w, h);
  }

  /** @param {number} px @param {number} py @param {View} view */
  foldAt(px, py, view) {
    const x = (px - view.tx) / view.kx, y = (py - view.ty) / view.ky;
    return this.model.folds.find(({ box }) => x >= box.x0 && x <= box.x1 && y >= box.y0 && y <= box.y1);
  }

  /** @param {number} px @param {number} py @param {View} view */
  tap(px, py, view) {
    if (detail(this.model.h * view.ky) === "fold") {
      const fold = this.foldAt(px, py, view);
      if (fold) this.surface.showBox(fold.box);
      return;
    }
    this.on.select(this.at(px, py, view));
  }

  /** @param {number} px @param {number} py @param {View} view */
  hover(px, py, view) {
    const { model } = this;
    if (detail(model.h * view.ky) === "fold") {
      const fold = this.foldAt(px, py, view);
      this.on.hint(fold ? `${model.types[fold.type]}, wave ${fold.wave + 1}: ${parts(fold.counts)}` : "", px, py);
      return;
    }
    const index = this.at(px, py, view);
    this.on.hint(index < 0 ? "" : `${plain(model.ids[index], 120)} · ${STATES[model.state[index]].word}`, px, py);
  }

  /** @param {string} key */
  key(key) {
    if (key === "Escape" && this.selected >= 0) this.on.select(-1);
    else if (key === "Enter" && this.selected >= 0) this.on.open(this.selected);
    else if (key === "Enter" && this.model.size) this.go(this.model.critical[0] ?? 0);
    else if (key.startsWith("Arrow") && this.selected >= 0) this.go(this.model.next(this.selected, key));
    else return false;
    return true;
  }

  /** @param {number} index */
  go(index) {
    if (index < 0) return;
    this.on.select(index);
    this.select(index, true);
  }

  close() { this.surface.close(); }
}

/** @param {Uint32Array} counts */
function parts(counts) {
  return STATES.flatMap((state, index) => counts[index] ? [`${count(counts[index])} ${state.word}`] : []).join(", ");
}

/** Name that fits: its end tells it from its neighbours, so the middle goes. @param {string} id @param {number} most characters */
export function shortened(id, most) {
  const text = plain(id, 200);
  if (text.length <= most) return text;
  if (most < 4) return text.slice(0, Math.max(0, most));
  const tail = Math.ceil((most - 1) * 0.6);
  return `${text.slice(0, most - 1 - tail)}…${text.slice(-tail)}`;
}
