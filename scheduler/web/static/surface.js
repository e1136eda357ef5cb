// A canvas that is panned and zoomed, whatever the size of the drawing.
//
// The drawing is painted on a layer, in slices of a few milliseconds a frame, by a generator of its scene. Meanwhile
// the layer painted last is shown, moved and scaled by the compositor, which costs the page nothing. So a frame's
// work is bounded by the slice, not by the number of components. Marks of a few things (what is selected) are
// painted on an overlay, each time.
import { between, centred, fitted, kept, moved, zoomed } from "./view.js";

/** @typedef {import("./view.js").View} View */
/** @typedef {import("./view.js").Box} Box */
/**
 * @typedef {object} Scene
 * @property {Box} box all there is to see
 * @property {(ctx: CanvasRenderingContext2D, view: View, width: number, height: number) => Generator<number>} paint
 *   yields the cost of what it has painted since its last word: about that of a rectangle each
 * @property {(ctx: CanvasRenderingContext2D, view: View, width: number, height: number) => void} overlay
 * @property {((ctx: CanvasRenderingContext2D, view: View, changed: number[]) => boolean)} [touch]
 *   paints single things again; false where that cannot be done
 * @property {(view: View, width: number, height: number) => View} [fit]
 * @property {(view: View, width: number, height: number) => View} [limit]
 * @property {(x: number, y: number, view: View) => void} [tap]
 * @property {(x: number, y: number, view: View) => void} [hover]
 * @property {(key: string) => boolean} [key]
 */

const SLICE_MS = 3;
const SLICE_COST = 1_500; // a canvas may paint later than it is told to: time alone is no bound
const MARGIN = 0.15; // of the window, on each side, painted beyond its edge
const MOST_PIXELS = 8_000_000; // of a layer
const STEP = 60, FACTOR = 1.25; // of a key
const TAP = 5; // px that a finger may move

export class Surface {
  /** @param {HTMLElement} host @param {Scene} scene @param {string} label @param {string} help id of the element that tells the keys */
  constructor(host, scene, label, help) {
    this.host = host;
    this.scene = scene;
    /** @type {View} */
    this.view = { kx: 1, ky: 1, tx: 0, ty: 0 };
    this.width = this.height = 0;
    this.ratio = 1; // pixels of the screen for one of the page
    this.mx = this.my = 0; // px, painted beyond the window's edges
    this.frame = 0; // that was asked for
    this.closed = false;
    this.untouched = true; // nobody has moved it yet, so that it may fit itself
    this.dirty = this.marksDirty = true;
    /** @type {Set<number>} */
    this.changed = new Set();
    this.layers = [0, 1].map(() => layer(host));
    this.overlay = layer(host);
    this.overlay.canvas.className = "overlay";
    /** @type {{run: Generator<number>, view: View, touched: Set<number>} | null} */
    this.job = null;
    /** @type {{view: View, mx: number, my: number} | null} what the layer in sight shows */
    this.drawn = null;
    host.tabIndex = 0;
    host.setAttribute("role", "application");
    host.setAttribute("aria-label", label);
    host.setAttribute("aria-describedby", help);
    this.sizes = new ResizeObserver(() => this.resize());
    this.sizes.observe(host);
    this.listen();
    this.resize();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.host;
    if (!width || !height) return;
    const mx = Math.ceil(width * MARGIN), my = Math.ceil(height * MARGIN);
    const area = (width + 2 * mx) * (height + 2 * my);
    const ratio = Math.min(devicePixelRatio || 1, Math.sqrt(MOST_PIXELS / area));
    if (width === this.width && height === this.height && ratio === this.ratio) return;
    [this.width, this.height, this.ratio, this.mx, this.my] = [width, height, ratio, mx, my];
    size(this.overlay.canvas, width, height, ratio);
    // What was painted stays in sight until it is painted anew: a canvas that gets another size is empty.
    this.job = null;
    if (this.untouched) this.fit(); else this.show(this.view);
  }

  /** Show everything. */
  fit() {
    this.untouched = true;
    const plain = fitted(this.scene.box, this.width, this.height);
    this.set(this.scene.fit ? this.scene.fit(plain, this.width, this.height) : plain);
  }

  /** @param {Box} box */
  showBox(box) { this.show(fitted(box, this.width, this.height, 40, 1.5)); }

  /** Show a view that somebody chose. @param {View} view */
  show(view) {
    this.untouched = false;
    this.set(this.scene.limit ? this.scene.limit(view, this.width, this.height) : kept(view, this.scene.box, this.width, this.height));
  }

  /** @param {View} view */
  set(view) {
    this.view = view;
    this.dirty = this.marksDirty = true;
    this.ask();
  }

  /** Paint all of it again. */
  refresh() {
    this.dirty = this.marksDirty = true;
    this.ask();
  }

  /** Paint the marks again. */
  mark() {
    this.marksDirty = true;
    this.ask();
  }

  /** Paint things again that have changed. @param {Iterable<number>} indices */
  touch(indices) {
    for (const index of indices) this.changed.add(index);
    this.ask();
  }

  ask() { this.frame ||= requestAnimationFrame(() => this.draw()); }

  /** Do the work of one frame. */
  draw() {
    this.frame = 0;
    if (!this.width || this.closed) return;
    this.touchUp();
    if (!this.job && this.dirty) this.begin();
    if (this.job) this.work(this.job);
    this.place();
    if (this.marksDirty) {
      this.marksDirty = false;
      this.clear(this.overlay);
      this.scene.overlay(this.overlay, this.view, this.width, this.height);
    }
    if (this.job || this.dirty || this.changed.size) this.ask();
  }

  begin() {
    this.dirty = false;
    const view = moved(this.view, this.mx, this.my);
    const context = this.layers[1];
    const [width, height] = [this.width + 2 * this.mx, this.height + 2 * this.my];
    size(context.canvas, width, height, this.ratio);
    this.clear(context);
    this.job = { run: this.scene.paint(context, view, width, height), view: this.view, touched: new Set() };
  }

  /** @param {{run: Generator<number>, view: View, touched: Set<number>}} job */
  work(job) {
    const began = performance.now();
    let cost = 0;
    while (cost < SLICE_COST && performance.now() - began < SLICE_MS) {
      const next = job.run.next();
      if (next.done) {
        this.swap(job);
        return;
      }
      cost += next.value;
    }
  }

  /** @param {{view: View, touched: Set<number>}} job */
  swap(job) {
    this.layers.reverse();
    this.drawn = { view: job.view, mx: this.mx, my: this.my };
    this.job = null;
    this.layers[0].canvas.hidden = false;
    this.layers[1].canvas.hidden = true;
    for (const index of job.touched) this.changed.add(index);
  }

  /** Put the layer that was painted last to where this view has it. */
  place() {
    if (!this.drawn) return;
    const { view, mx, my } = this.drawn;
    const { kx, ky, tx, ty } = between(view, this.view);
    const left = tx - mx * kx, top = ty - my * ky;
    this.layers[0].canvas.style.transform = `matrix(${kx},0,0,${ky},${left},${top})`;
  }

  touchUp() {
    if (!this.changed.size) return;
    const changed = [...this.changed];
    this.changed.clear();
    this.marksDirty = true;
    for (const index of changed) this.job?.touched.add(index);
    if (!this.drawn || this.dirty) return;
    const view = moved(this.drawn.view, this.drawn.mx, this.drawn.my);
    if (changed.length > SLICE_COST / 4 || !this.scene.touch?.(this.layers[0], view, changed)) this.dirty = true;
  }

  /** @param {CanvasRenderingContext2D} context */
  clear(context) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
  }

  close() {
    this.closed = true;
    this.sizes.disconnect();
    if (this.frame) cancelAnimationFrame(this.frame);
    // The memory of a canvas is freed when it has no size, not when it has no owner.
    for (const { canvas } of [...this.layers, this.overlay]) canvas.width = canvas.height = 0;
  }

  listen() {
    const { host } = this;
    /** @type {Map<number, {x: number, y: number}>} */
    const fingers = new Map();
    let far = 0;
    host.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      host.setPointerCapture(event.pointerId);
      if (!fingers.size) far = 0;
      fingers.set(event.pointerId, this.point(event));
    });
    host.addEventListener("pointermove", (event) => {
      const at = this.point(event), was = fingers.get(event.pointerId);
      if (!was) {
        this.scene.hover?.(at.x, at.y, this.view);
        return;
      }
      far += Math.abs(at.x - was.x) + Math.abs(at.y - was.y);
      const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
      fingers.set(event.pointerId, at);
      if (other) this.pinch(was, at, other);
      else if (far > TAP) this.show(moved(this.view, at.x - was.x, at.y - was.y));
    });
    /** @param {PointerEvent} event */
    const up = (event) => {
      const at = this.point(event);
      if (fingers.delete(event.pointerId) && !fingers.size && far <= TAP && event.type === "pointerup") this.scene.tap?.(at.x, at.y, this.view);
    };
    host.addEventListener("pointerup", up);
    host.addEventListener("pointercancel", up);
    host.addEventListener("wheel", (event) => {
      event.preventDefault();
      const at = this.point(event);
      const lines = event.deltaMode ? 20 : 1;
      if (event.shiftKey) this.show(moved(this.view, -event.deltaX * lines, -event.deltaY * lines));
      else this.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), at.x, at.y);
    }, { passive: false });
    host.addEventListener("keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey && this.key(event.key, event.shiftKey)) event.preventDefault();
    });
  }

  /** @param {{x: number, y: number}} was @param {{x: number, y: number}} at @param {{x: number, y: number}} other */
  pinch(was, at, other) {
    const before = Math.hypot(was.x - other.x, was.y - other.y), after = Math.hypot(at.x - other.x, at.y - other.y);
    const view = moved(this.view, (at.x - was.x) / 2, (at.y - was.y) / 2);
    const f = before > 8 ? after / before : 1;
    this.show(zoomed(view, f, f, (at.x + other.x) / 2, (at.y + other.y) / 2));
  }

  /** @param {number} factor @param {number} [x] @param {number} [y] */
  zoom(factor, x = this.width / 2, y = this.height / 2) { this.show(zoomed(this.view, factor, factor, x, y)); }

  /** @param {string} key @param {boolean} shift @returns {boolean} whether it means something */
  key(key, shift) {
    if (!shift && this.scene.key?.(key)) return true;
    /** @type {Record<string, () => void>} */
    const known = {
      "+": () => this.zoom(FACTOR), "=": () => this.zoom(FACTOR), "-": () => this.zoom(1 / FACTOR), 0: () => this.fit(),
      ArrowLeft: () => this.show(moved(this.view, STEP, 0)), ArrowRight: () => this.show(moved(this.view, -STEP, 0)),
      ArrowUp: () => this.show(moved(this.view, 0, STEP)), ArrowDown: () => this.show(moved(this.view, 0, -STEP)),
    };
    if (!Object.hasOwn(known, key)) return false;
    known[key]();
    return true;
  }

  /** @param {MouseEvent} event */
  point(event) {
    const box = this.host.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }
}

/** @param {HTMLElement} host @returns {CanvasRenderingContext2D} */
function layer(host) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true");
  host.append(canvas);
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}

/** @param {HTMLCanvasElement} canvas @param {number} width @param {number} height @param {number} ratio */
function size(canvas, width, height, ratio) {
  const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== across) canvas.width = across;
  if (canvas.height !== down) canvas.height = down;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
}

/** Colours of the theme, by the names that the style sheet has for them. @returns {(name: string) => string} */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  /** @type {Map<string, string>} */
  const known = new Map();
  return (name) => {
    let value = known.get(name);
    if (value === undefined) known.set(name, value = style.getPropertyValue(`--${name}`).trim());
    return value;
  };
}
