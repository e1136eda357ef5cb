// The timeline of a build on a canvas: rows by lane, time from left to right.
import { STATES } from "./states.js";
import { count, counted, duration, niceStep, plain, tick } from "./format.js";
import { Surface, palette } from "./surface.js";
import { shownBox } from "./view.js";
import { shortened } from "./graph.js";

/** @typedef {import("./view.js").View} View */
/** @typedef {import("./view.js").Box} Box */

const ROW = 16; // px at scale 1, of a lane
const HEAD = 46; // px, of the axis and the critical path above the lanes
const MOST_ROW = 26, NAMED_ROW = 14; // px
const WAITS = ["slots", "retry", "pause", "outage", "approval"];

/** Bars of a timeline, each a pair of times in a lane; sorted by lane and start, so that what no pixel shows is passed over. Pure. */
export class Bars {
  /** @param {{lane: number, place: number, from: number, to: number}[]} bars */
  constructor(bars) {
    bars.sort((a, b) => a.lane - b.lane || a.from - b.from);
    this.size = bars.length;
    this.lane = Uint32Array.from(bars, (bar) => bar.lane);
    this.place = Uint32Array.from(bars, (bar) => bar.place);
    this.from = Float64Array.from(bars, (bar) => bar.from);
    this.to = Float64Array.from(bars, (bar) => bar.to);
  }

  /** First bar of a lane, or of one behind it. @param {number} lane */
  start(lane) {
    let low = 0, high = this.size;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.lane[middle] < lane) low = middle + 1; else high = middle;
    }
    return low;
  }
}

/** Take an answer apart into bars of work and of waiting. @param {any} answer */
export function barsOf(answer) {
  const { index, lane, sent, end } = answer, work = [];
  for (let place = 0; place < index.length; place++) {
    if (end[place] > sent[place]) work.push({ lane: lane[place], place, from: sent[place], to: end[place] });
  }
  for (const [place, from, to] of answer.attempts) work.push({ lane: lane[place], place, from, to });
  const wait = WAITS.flatMap((reason) => (answer.waits[reason] ?? []).map((/** @type {number[]} */ [place, from, to]) => ({ lane: lane[place], place, from, to })));
  return { work: new Bars(work), wait: new Bars(wait), failed: new Bars([]) };
}

/** The timeline as a scene of a `Surface`. */
export class Timeline {
  /**
   * @param {HTMLElement} host @param {any} answer @param {import("./model.js").Model} model @param {string} help id
   * @param {{select: (index: number) => void, open: (index: number) => void, hint: (text: string, x: number, y: number) => void}} on
   */
  constructor(host, answer, model, help, on) {
    this.model = model;
    this.on = on;
    this.selected = -1; // index of a component
    /** @type {number[] | null} */
    this.order = null; // places in the order of time
    this.answer = answer;
    this.bars = { work: new Bars([]), wait: new Bars([]), failed: new Bars([]) };
    this.box = { x0: 0, y0: 0, x1: 1, y1: ROW };
    this.length = 1; // s
    this.isCritical = new Uint8Array(0); // by place
    /** @type {Map<number, number>} */
    this.placeOf = new Map(); // by the index of a component
    this.take(answer);
    this.colour = palette();
    this.surface = new Surface(host, this, `Timeline of ${counted(answer.index.length, "component")}`, help);
  }

  /** @param {any} answer */
  take(answer) {
    this.answer = answer;
    this.bars = barsOf(answer);
    this.length = Math.max(answer.length, 0.001);
    this.isCritical = new Uint8Array(answer.index.length);
    for (const place of answer.critical) this.isCritical[place] = 1;
    this.placeOf = new Map(answer.index.map((/** @type {number} */ index, /** @type {number} */ place) => [index, place]));
    this.order = null;
    this.findFailed();
    this.box = { x0: 0, y0: 0, x1: this.length, y1: Math.max(answer.lanes, 1) * ROW };
  }

  findFailed() {
    const { index, lane, sent, end } = this.answer, errored = STATES.findIndex((state) => state.name === "errored");
    const places = [...index.keys()].filter((place) => this.model.state[index[place]] === errored);
    this.bars.failed = new Bars(places.map((place) => ({ lane: lane[place], place, from: sent[place], to: end[place] })));
  }

  /** Show a newer answer, where the view is. @param {any} answer */
  update(answer) {
    this.take(answer);
    if (this.surface.untouched) this.surface.fit(); else this.surface.refresh();
  }

  repaint() {
    this.colour = palette();
    this.surface.refresh();
  }

  /** @param {View} _ @param {number} width @param {number} height @returns {View} */
  fit(_, width, height) {
    const side = 12, kx = Math.max(width - 2 * side, 1) / this.length;
    return { kx, ky: this.leastRow(height), tx: side, ty: HEAD };
  }

  /** @param {number} height */
  leastRow(height) { return Math.min(1, Math.max(height - HEAD - 8, 1) / this.box.y1); }

  /** @param {View} view @param {number} width @param {number} height @returns {View} */
  limit(view, width, height) {
    const all = width / this.length, least = this.leastRow(height), most = MOST_ROW / ROW;
    const kx = Math.min(Math.max(view.kx, all * 0.5), Math.max(all, 20_000)), ky = Math.min(Math.max(view.ky, least), most);
    // A side that can be zoomed no more keeps its middle.
    const tx = kx === view.kx ? view.tx : width / 2 - (width / 2 - view.tx) / view.kx * kx;
    const ty = ky === view.ky ? view.ty : height / 2 - (height / 2 - view.ty) / view.ky * ky;
    return {
      kx, ky,
      tx: Math.min(Math.max(tx, 80 - this.length * kx), width - 80),
      ty: Math.min(Math.max(ty, Math.min(HEAD, height - 8 - this.box.y1 * ky)), HEAD),
    };
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {number} width @param {number} height @returns {Generator<number>} */
  *paint(ctx, view, width, height) {
    const shown = shownBox(view, width, height);
    this.paintBands(ctx, view, height);
    yield 20;
    yield* this.paintBars(ctx, view, shown, this.bars.wait, 0.36, () => "wait");
    yield* this.paintBars(ctx, view, shown, this.bars.work, 0.82, (place) => (this.isCritical[place] ? "critical" : this.workColour(place)));
    // What has failed is to be seen also where bars are narrower than a pixel.
    yield* this.paintBars(ctx, view, shown, this.bars.failed, 0.82, () => "s-errored", 3);
    if (view.ky * ROW >= NAMED_ROW) yield* this.paintNames(ctx, view, shown);
  }

  /** @param {number} place */
  workColour(place) { return `s-${STATES[this.model.state[this.answer.index[place]]].css}`; }

  /** Times in which nothing could be sent, over the whole height. @param {CanvasRenderingContext2D} ctx @param {View} view @param {number} height */
  paintBands(ctx, view, height) {
    for (const [name, bands] of [["pause", this.answer.pauses], ["outage", this.answer.outages]]) {
      ctx.fillStyle = this.colour(`band-${name}`);
      for (const [from, to] of bands) ctx.fillRect(from * view.kx + view.tx, 0, Math.max(2, ((to ?? this.length) - from) * view.kx), height);
    }
  }

  /**
   * @param {CanvasRenderingContext2D} ctx @param {View} view @param {Box} shown @param {Bars} bars
   * @param {number} share of the row's height @param {(place: number) => string} colour name @param {number} least px
   */
  *paintBars(ctx, view, shown, bars, share, colour, least = 1) {
    const row = ROW * view.ky, high = Math.max(least, Math.floor(row * share)), inset = Math.floor((row - high) / 2);
    const last = Math.floor(shown.y1 / ROW);
    let cost = 0;
    for (let lane = Math.max(0, Math.floor(shown.y0 / ROW)); lane <= last && lane < this.answer.lanes; lane++) {
      const top = Math.round(lane * row + view.ty) + inset, y1 = bars.start(lane + 1);
      let painted = -Infinity;
      for (let n = bars.start(lane); n < y1; n++) {
        const to = bars.to[n] * view.kx + view.tx, from = Math.max(bars.from[n] * view.kx + view.tx, -2);
        if (to < 0 || bars.from[n] > shown.x1 || to <= painted) continue;
        const left = Math.max(Math.round(from), painted), right = Math.max(Math.round(to) - (to - from > 3 ? 1 : 0), left + least);
        ctx.fillStyle = this.colour(colour(bars.place[n]));
        ctx.fillRect(left, top, right - left, high);
        painted = right;
        if (++cost >= 200) {
          yield cost;
          cost = 0;
        }
      }
    }
    yield cost;
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {Box} shown */
  *paintNames(ctx, view, shown) {
    const { work } = this.bars, row = ROW * view.ky, end = work.start(Math.floor(shown.y1 / ROW) + 1);
    ctx.font = `${Math.min(12, row * 0.72)}px ${this.colour("font")}`;
    ctx.textBaseline = "middle";
    ctx.fillStyle = this.colour("on-state");
    for (let n = work.start(Math.max(0, Math.floor(shown.y0 / ROW))); n < end; n++) {
      const left = Math.max(work.from[n] * view.kx + view.tx, 0), room = work.to[n] * view.kx + view.tx - left;
      if (room < 40 || work.from[n] > shown.x1) continue;
      const id = this.model.ids[this.answer.index[work.place[n]]];
      ctx.fillText(shortened(id, Math.floor((room - 8) / 6.6)), left + 4, (work.lane[n] + 0.5) * row + view.ty, room - 6);
      yield 25;
    }
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {number} width @param {number} height */
  overlay(ctx, view, width, height) {
    this.paintGrid(ctx, view, width, height);
    this.paintCritical(ctx, view, width);
    this.paintBandNames(ctx, view, width, height);
    const place = this.placeOf.get(this.selected);
    if (place === undefined) return;
    const { due, end, lane } = this.answer, top = lane[place] * ROW * view.ky + view.ty;
    if (top < HEAD - 4) return;
    ctx.strokeStyle = this.colour("accent");
    ctx.lineWidth = 2;
    const left = due[place] * view.kx + view.tx;
    ctx.strokeRect(left - 2, top - 1, Math.max(4, (end[place] - due[place]) * view.kx + 4), Math.max(5, ROW * view.ky + 2));
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {number} width @param {number} height */
  paintGrid(ctx, view, width, height) {
    const step = niceStep(95 / view.kx), first = Math.max(0, Math.ceil(-view.tx / view.kx / step));
    ctx.fillStyle = this.colour("panel");
    ctx.fillRect(0, 0, width, HEAD - 2);
    ctx.font = `12px ${this.colour("font")}`;
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    for (let n = first; ; n++) {
      const x = Math.round(n * step * view.kx + view.tx) + 0.5;
      if (x > width || n > first + 200) break;
      ctx.fillStyle = this.colour("grid");
      ctx.fillRect(x, 0, 1, height);
      ctx.fillStyle = this.colour("quiet");
      ctx.fillText(tick(n * step, step), x + 4, 11);
    }
    ctx.fillStyle = this.colour("line");
    ctx.fillRect(0, 22, width, 1);
    ctx.fillRect(0, HEAD - 3, width, 1);
  }

  /** The critical path in a row of its own, which stays. @param {CanvasRenderingContext2D} ctx @param {View} view @param {number} width */
  paintCritical(ctx, view, width) {
    const { critical, index, due, sent, end } = this.answer;
    let painted = -1;
    for (const [n, place] of critical.entries()) {
      const from = sent[place] * view.kx + view.tx, to = end[place] * view.kx + view.tx, waited = due[place] * view.kx + view.tx;
      if (to < 0 || waited > width || to <= painted) continue;
      ctx.fillStyle = this.colour("wait");
      if (from - waited >= 1) ctx.fillRect(Math.max(waited, 0), 31, from - Math.max(waited, 0), 5);
      const left = Math.max(Math.round(from), painted, 0), right = Math.max(Math.round(to) - 1, left + 1);
      ctx.fillStyle = this.colour(n % 2 ? "critical" : "critical-other");
      ctx.fillRect(left, 26, right - left, 15);
      painted = right;
      if (right - left > 50) {
        ctx.fillStyle = this.colour("on-state");
        ctx.font = `11px ${this.colour("font")}`;
        ctx.fillText(shortened(this.model.ids[index[place]], Math.floor((right - left - 8) / 6.2)), left + 4, 34, right - left - 6);
      }
    }
  }

  /** @param {CanvasRenderingContext2D} ctx @param {View} view @param {number} width @param {number} height */
  paintBandNames(ctx, view, width, height) {
    ctx.font = `11px ${this.colour("font")}`;
    ctx.fillStyle = this.colour("text");
    for (const [name, bands] of [["paused", this.answer.pauses], ["outage", this.answer.outages]]) {
      for (const [from, to] of bands) {
        const left = Math.max(from * view.kx + view.tx, 0), right = Math.min((to ?? this.length) * view.kx + view.tx, width);
        if (right - left > 48) ctx.fillText(name, left + 4, height - 10);
      }
    }
  }

  /** Place of the bar at a point of the window, or -1. @param {number} px @param {number} py @param {View} view */
  at(px, py, view) {
    const x = (px - view.tx) / view.kx, slack = 3 / view.kx;
    if (py > 22 && py < HEAD) {
      return this.answer.critical.find((/** @type {number} */ place) => x >= this.answer.due[place] - slack && x <= this.answer.end[place] + slack) ?? -1;
    }
    if (py <= 22) return -1;
    const lane = Math.floor((py - view.ty) / view.ky / ROW);
    for (const bars of [this.bars.work, this.bars.wait]) {
      const end = bars.start(lane + 1);
      for (let n = bars.start(lane); n < end; n++) if (x >= bars.from[n] - slack && x <= bars.to[n] + slack) return bars.place[n];
    }
    return -1;
  }

  /** @param {number} px @param {number} py @param {View} view */
  tap(px, py, view) {
    const place = this.at(px, py, view);
    this.on.select(place < 0 ? -1 : this.answer.index[place]);
  }

  /** @param {number} px @param {number} py @param {View} view */
  hover(px, py, view) {
    const place = this.at(px, py, view);
    this.on.hint(place < 0 ? "" : this.tell(place), px, py);
  }

  /** @param {number} place */
  tell(place) {
    const { index, due, sent, end, attempts } = this.answer, which = index[place];
    const before = attempts.filter((/** @type {number[]} */ [one]) => one === place);
    const worked = before.reduce((/** @type {number} */ sum, /** @type {number[]} */ [, from, to]) => sum + to - from, end[place] - sent[place]);
    const waited = Math.max(0, end[place] - due[place] - worked);
    const tries = before.length ? `, ${counted(before.length + 1, "attempt")}` : "";
    return `${plain(this.model.ids[which], 120)} · ${STATES[this.model.state[which]].word} · waited ${duration(waited)}, worked ${duration(worked)}${tries}`;
  }

  /** @param {number} index of a component @param {boolean} show */
  select(index, show) {
    this.selected = index;
    const place = this.placeOf.get(index);
    if (show && place !== undefined) {
      const { view, width, height } = this.surface, middle = (this.answer.due[place] + this.answer.end[place]) / 2;
      const ky = Math.max(view.ky, NAMED_ROW / ROW);
      this.surface.show({ ...view, ky, tx: width / 2 - middle * view.kx, ty: height / 2 - this.answer.lane[place] * ROW * ky });
    }
    this.surface.mark();
  }

  /** @param {string} key */
  key(key) {
    const { index, due } = this.answer;
    if (key === "Escape" && this.selected >= 0) this.on.select(-1);
    else if (key === "Enter" && this.selected >= 0) this.on.open(this.selected);
    else if (key === "Enter" && index.length) this.go(index[this.answer.critical[0] ?? 0]);
    else if ((key === "ArrowLeft" || key === "ArrowRight") && this.selected >= 0) {
      // The next one in time.
      /** @type {number[]} */
      const order = this.order ??= [...index.keys()].sort((a, b) => due[a] - due[b]);
      const at = order.indexOf(this.placeOf.get(this.selected) ?? -1) + (key === "ArrowRight" ? 1 : -1);
      if (order[at] !== undefined) this.go(index[order[at]]);
    } else return false;
    return true;
  }

  /** @param {number} index */
  go(index) {
    this.on.select(index);
    this.select(index, true);
  }

  /** What a reader of screens is told. */
  summary() {
    const { index, most, working, waiting } = this.answer;
    const waits = Object.entries(waiting).filter(([, seconds]) => seconds > 0).map(([reason, seconds]) => `${reason} ${duration(seconds)}`);
    return `${counted(index.length, "component")}, at most ${count(most)} at a time; worked ${duration(working)}${waits.length ? `, waited for ${waits.join(", ")}` : ""}`;
  }

  close() { this.surface.close(); }
}
