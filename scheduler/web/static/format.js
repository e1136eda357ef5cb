// Numbers, times and texts as people read them. Pure: nothing here knows the page.

const MINUTE = 60, HOUR = 3600, DAY = 86400;

/** Duration in words of at most two units, as the command line has it; `seconds` may be null. @param {number|null|undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 0) seconds = 0;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return `${Math.floor(whole / MINUTE)} min ${pad(whole % MINUTE)} s`;
  if (whole < DAY) return `${Math.floor(whole / HOUR)} h ${pad(Math.floor(whole % HOUR / MINUTE))} min`;
  return `${Math.floor(whole / DAY)} d ${pad(Math.floor(whole % DAY / HOUR))} h`;
}

/** Two digits. @param {number} n */
function pad(n) { return String(n).padStart(2, "0"); }

/** Number with thousands apart. @param {number|null|undefined} n */
export function count(n) {
  if (n === null || n === undefined || !Number.isFinite(n)) return "–";
  return String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** `3 components`, `1 component`. @param {number} n @param {string} word */
export function counted(n, word) { return `${count(n)} ${word}${n === 1 ? "" : "s"}`; }

/** Share in percent; 100 only where nothing is left, 0 only where nothing is done. @param {number} done @param {number} total */
export function percent(done, total) {
  if (!(total > 0)) return "–";
  const share = Math.round(100 * done / total);
  if (share === 100 && done < total) return "99 %";
  return share === 0 && done > 0 ? "<1 %" : `${share} %`;
}

/** Time of day, with the date where it is not today's; `at` in seconds since 1970. @param {number|null|undefined} at @param {number} now */
export function clock(at, now) {
  if (at === null || at === undefined || !Number.isFinite(at)) return "–";
  const date = new Date(at * 1000);
  const time = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return new Date(now * 1000).toDateString() === date.toDateString() ? time : `${day(date)} ${time}`;
}

/** @param {Date} date */
function day(date) { return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`; }

/** Text for one line: control characters and those that turn the line around are shown, not obeyed. @param {unknown} text @param {number} most */
export function plain(text, most = 400) {
  const shown = String(text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, visible);
  return shown.length > most ? `${[...shown].slice(0, most - 1).join("")}…` : shown;
}

/** @param {string} character */
function visible(character) {
  return character === "\n" || character === "\t" ? " " : `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** Step of an axis, of 1, 2 or 5 times a power of ten, then minutes and hours. @param {number} least seconds */
export function niceStep(least) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
  if (least > 86400) return 86400 * Math.ceil(least / 86400);
  if (least >= 0.5) return steps.find((step) => step >= least) ?? 86400;
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1e-6)));
  return power * ([1, 2, 5, 10].find((digit) => digit * power >= least * 0.999999) ?? 10);
}

/** Label of a tick of an axis. @param {number} at seconds @param {number} step seconds */
export function tick(at, step) {
  if (step < 1) return `${at.toFixed(Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)))} s`;
  if (at < 120 && step < 60) return `${Math.round(at)} s`;
  const whole = Math.round(at);
  const hours = Math.floor(whole / HOUR), minutes = Math.floor(whole % HOUR / MINUTE);
  if (hours) return `${hours}:${pad(minutes)}${step < MINUTE ? `:${pad(whole % MINUTE)}` : ""} h`;
  return `${minutes}:${pad(whole % MINUTE)} min`;
}
