// Transform between a drawing and the screen: what is at (x, y) is shown at (x * kx + tx, y * ky + ty). Pure.

/** @typedef {{kx: number, ky: number, tx: number, ty: number}} View */
/** @typedef {{x0: number, y0: number, x1: number, y1: number}} Box */

/** Move by pixels. @param {View} view @param {number} dx @param {number} dy @returns {View} */
export function moved(view, dx, dy) { return { ...view, tx: view.tx + dx, ty: view.ty + dy }; }

/**
 * Zoom about a point of the screen, which stays where it is.
 * @param {View} view @param {number} fx @param {number} fy factors @param {number} px @param {number} py @returns {View}
 */
export function zoomed(view, fx, fy, px, py) {
  return { kx: view.kx * fx, ky: view.ky * fy, tx: px - (px - view.tx) * fx, ty: py - (py - view.ty) * fy };
}

/** View in which a box fills a window, evenly. @param {Box} box @param {number} width @param {number} height @param {number} margin @param {number} most @returns {View} */
export function fitted(box, width, height, margin = 24, most = 1.5) {
  const w = Math.max(box.x1 - box.x0, 1), h = Math.max(box.y1 - box.y0, 1);
  const k = Math.min(Math.max(width - 2 * margin, 1) / w, Math.max(height - 2 * margin, 1) / h, most);
  return { kx: k, ky: k, tx: (width - w * k) / 2 - box.x0 * k, ty: (height - h * k) / 2 - box.y0 * k };
}

/** View with the drawing's point in the middle of the window. @param {View} view @param {number} x @param {number} y @param {number} width @param {number} height @returns {View} */
export function centred(view, x, y, width, height) {
  return { ...view, tx: width / 2 - x * view.kx, ty: height / 2 - y * view.ky };
}

/** Part of the drawing that a window shows. @param {View} view @param {number} width @param {number} height @param {number} margin px @returns {Box} */
export function shownBox(view, width, height, margin = 0) {
  return {
    x0: (-margin - view.tx) / view.kx, y0: (-margin - view.ty) / view.ky,
    x1: (width + margin - view.tx) / view.kx, y1: (height + margin - view.ty) / view.ky,
  };
}

/** Keep at least a part of the drawing in the window. @param {View} view @param {Box} box @param {number} width @param {number} height @returns {View} */
export function kept(view, box, width, height) {
  const room = 80;
  return {
    ...view,
    tx: Math.min(Math.max(view.tx, room - box.x1 * view.kx), width - room - box.x0 * view.kx),
    ty: Math.min(Math.max(view.ty, room - box.y1 * view.ky), height - room - box.y0 * view.ky),
  };
}

/** Transform of a picture that was drawn in one view, to where another has it. @param {View} drawn @param {View} now @returns {View} */
export function between(drawn, now) {
  const kx = now.kx / drawn.kx, ky = now.ky / drawn.ky;
  return { kx, ky, tx: now.tx - drawn.tx * kx, ty: now.ty - drawn.ty * ky };
}

/** Buckets of points by square, for the question which is the nearest. */
export class Grid {
  /** @param {ArrayLike<number>} xs @param {ArrayLike<number>} ys @param {number} cell side of a square */
  constructor(xs, ys, cell) {
    this.xs = xs;
    this.ys = ys;
    this.cell = cell;
    /** @type {Map<string, number[]>} */
    this.buckets = new Map();
    for (let i = 0; i < xs.length; i++) {
      const key = `${Math.floor(xs[i] / cell)},${Math.floor(ys[i] / cell)}`;
      const bucket = this.buckets.get(key);
      if (bucket) bucket.push(i); else this.buckets.set(key, [i]);
    }
  }

  /** Point whose box of half sizes (w, h) has (x, y), the nearest first; -1 where there is none. @param {number} x @param {number} y @param {number} w @param {number} h */
  at(x, y, w, h) {
    const { cell } = this;
    let best = -1, least = Infinity;
    for (let column = Math.floor((x - w) / cell); column <= Math.floor((x + w) / cell); column++) {
      for (let row = Math.floor((y - h) / cell); row <= Math.floor((y + h) / cell); row++) {
        for (const i of this.buckets.get(`${column},${row}`) ?? []) {
          const dx = Math.abs(this.xs[i] - x), dy = Math.abs(this.ys[i] - y);
          if (dx <= w && dy <= h && dx * dx + dy * dy < least) {
            best = i;
            least = dx * dx + dy * dy;
          }
        }
      }
    }
    return best;
  }
}
