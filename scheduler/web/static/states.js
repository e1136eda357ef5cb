// States of components and statuses of builds: a word, a sign and a colour each, so that no colour stands alone.

/** @typedef {{name: string, letter: string, word: string, sign: string, css: string}} State */

/** States of components, in the order in which they are drawn above each other. @type {State[]} */
export const STATES = [
  { name: "waiting", letter: "w", word: "waiting", sign: "○", css: "waiting" },
  { name: "completed", letter: "c", word: "completed", sign: "✓", css: "completed" },
  { name: "skipped", letter: "s", word: "skipped", sign: "»", css: "skipped" },
  { name: "running", letter: "r", word: "running", sign: "▶", css: "running" },
  { name: "retrying", letter: "y", word: "retrying", sign: "↻", css: "retrying" },
  { name: "gated", letter: "g", word: "awaits approval", sign: "◆", css: "gated" },
  { name: "errored", letter: "e", word: "errored", sign: "✕", css: "errored" },
];

/** Order in which a bar of progress has them: what is settled first. */
export const BAR = ["completed", "skipped", "errored", "running", "retrying", "gated", "waiting"];

/** @type {Record<string, {word: string, sign: string, css: string, group: string}>} */
const STATUSES = {
  running: { word: "running", sign: "▶", css: "running", group: "running" },
  paused: { word: "paused", sign: "‖", css: "gated", group: "running" },
  halted: { word: "halted", sign: "■", css: "errored", group: "running" },
  accepted: { word: "accepted", sign: "○", css: "waiting", group: "running" },
  done: { word: "done", sign: "✓", css: "completed", group: "finished" },
  errored: { word: "failed", sign: "✕", css: "errored", group: "failed" },
  cancelled: { word: "cancelled", sign: "⊘", css: "skipped", group: "failed" },
  quarantined: { word: "quarantined", sign: "!", css: "errored", group: "failed" },
};

const BY_NAME = new Map(STATES.map((state, index) => [state.name, index]));

/** Index in `STATES`; that of `waiting` for a word from a later version. @param {string} name */
export function indexOf(name) { return BY_NAME.get(name) ?? 0; }

/** @param {string} name @returns {State} */
export function stateOf(name) { return STATES[indexOf(name)]; }

/** Status of a build; a later version may have others. @param {string} name */
export function statusOf(name) { return STATUSES[name] ?? { word: name, sign: "?", css: "waiting", group: "running" }; }

/** Whether nothing more will happen to a build of this status. @param {string} status */
export function isOver(status) { return statusOf(status).group !== "running"; }

/** Components of a build that are settled. @param {Record<string, number>} counts */
export function settled(counts) { return (counts.completed ?? 0) + (counts.errored ?? 0) + (counts.skipped ?? 0); }

const BY_LETTER = new Map(STATES.map((state, index) => [state.letter, index]));

/** Index in `STATES` of a letter, as streams have it. @param {string} letter */
export function indexOfLetter(letter) { return BY_LETTER.get(letter) ?? 0; }

/** Components by state, with those that await an approval apart from those that wait for others. @param {any} status @returns {Record<string, number>} */
export function apart({ counts, gated = 0 }) { return { ...counts, gated, waiting: Math.max(0, counts.waiting - gated) }; }
