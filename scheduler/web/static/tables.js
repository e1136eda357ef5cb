// The views of a build that are tables: components, events, report, and the plan beside what happened.
import { apiUrl, ask, buildUrl } from "./api.js";
import { badge, debounced, el, fill, idText, Rows, say } from "./dom.js";
import { clock, count, counted, duration, plain } from "./format.js";
import { BAR, STATES, indexOfLetter, stateOf } from "./states.js";

const PAGE = 200;
const FRESH = 4_000; // ms between two questions for what has changed

/**
 * @typedef {object} Place what a view is given
 * @property {string} id of the build
 * @property {HTMLElement} root
 * @property {() => any} status
 * @property {(component: string) => void} open
 * @property {() => number} now seconds since 1970, by the owner's clock
 */
/** @typedef {{close: () => void, update?: (update: any) => void, tick?: () => void, repaint?: () => void, select?: (component: string) => void}} View */

/** @param {Place} place @param {string} id */
function componentLink({ id: build, open }, id) {
  return el("a", { href: buildUrl(build, "components", id), onclick: (/** @type {MouseEvent} */ event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(id);
  } }, idText(id));
}

/** @param {HTMLElement} root @param {string} label @param {string[]} heads names, with a `>` before those of numbers */
function table(root, label, heads) {
  const body = el("tbody");
  root.append(el("div", { class: "scroll", role: "region", "aria-label": `Table: ${label}`, tabindex: "0" }, el("table", {},
    el("thead", {}, el("tr", {}, heads.map((name) => el("th", { scope: "col", class: name.startsWith(">") ? "number" : "" }, name.replace(">", ""))))), body)));
  return body;
}

/** @param {HTMLElement} root @param {any} error */
function failed(root, error) { if (error.name !== "AbortError") fill(root, el("p", { class: "alert", role: "alert" }, plain(error.message))); }

/** Components: searched, filtered, and by default sorted by age. @param {Place} place @param {string} state to begin with @returns {View} */
export function componentsView(place, state) {
  const { root } = place;
  const search = el("input", { type: "search", placeholder: "Search components", "aria-label": "Search components", spellcheck: "false", autocomplete: "off" });
  const states = choice("State", [["", "All states"], ...BAR.map((name) => [name, stateOf(name).word])], state);
  const types = choice("Type", [["", "All types"]], "");
  const sorts = choice("Sorted by", [["age", "by age"], ["id", "by id"], ["state", "by state"]], "age");
  const matching = el("p", { class: "quiet", role: "status" }), more = el("button", { type: "button", hidden: true }, "Show more");
  fill(root, el("form", { class: "tools", role: "search", onsubmit: (/** @type {Event} */ event) => event.preventDefault() }, search, states, types, sorts, matching));
  const body = table(root, "Components", ["Component", "State", ">Age", ">Attempt", "Subject", "Says"]);
  root.append(more);
  const rows = new Rows(body, (first) => componentRow(place, first));
  /** @type {any[]} */
  let shown = [];
  /** @type {number | null} */
  let next = null;
  let asking = new AbortController(), asked = 0, stale = false;

  async function find(/** @type {number | undefined} */ after = undefined) {
    asking.abort();
    asking = new AbortController();
    asked = Date.now();
    stale = false;
    try {
      const limit = after === undefined ? Math.max(PAGE, Math.min(shown.length, 1_000)) : PAGE;
      const page = await ask(apiUrl(place.id, "components", { search: search.value.trim(), state: states.value, type: types.value, sort: sorts.value, limit, after }), { signal: asking.signal });
      shown = after === undefined ? page.components : [...shown, ...page.components];
      next = page.next;
      if (types.options.length === 1) types.append(...Object.keys(page.types).sort().map((name) => el("option", { value: name }, `${plain(name, 60)} (${count(page.types[name])})`)));
      rows.show(shown, (one) => one.id);
      say(matching, shown.length === page.matching ? counted(page.matching, "component") : `${count(shown.length)} of ${counted(page.matching, "component")}`);
      more.hidden = next === null;
    } catch (error) {
      if (error.name !== "AbortError") say(matching, plain(error.message));
    }
  }

  const soon = debounced(200, () => find());
  for (const element of [search, states, types, sorts]) element.addEventListener("input", soon);
  more.addEventListener("click", () => { if (next !== null) find(next); });
  find();
  return {
    update({ rows: changed, states: all }) {
      const letters = all || new Map(changed);
      const letter = (/** @type {number} */ index) => (typeof letters === "string" ? letters[index] : letters.get(index));
      let any = false;
      for (const one of shown) {
        const to = letter(one.index);
        if (to === undefined || STATES[indexOfLetter(to)].name === one.state) continue;
        one.state = STATES[indexOfLetter(to)].name;
        any = true;
      }
      if (any) rows.show(shown, (one) => one.id);
      stale = true;
    },
    tick() {
      if (stale && Date.now() - asked > FRESH) find();
      else rows.show(shown, (one) => one.id);
    },
    close() { asking.abort(); },
  };
}

/** @param {string} label @param {string[][]} options @param {string} chosen */
function choice(label, options, chosen) {
  return el("select", { "aria-label": label }, options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}

/** Seconds that a component has been in its state, or took. @param {any} one @param {number} now */
export function ageOf(one, now) {
  if (one.state === "running" && one.sent) return now - one.sent;
  if (one.ended && one.sent) return one.ended - one.sent;
  return one.due && !one.ended ? now - one.due : null;
}

/** @param {Place} place @param {any} first */
function componentRow(place, first) {
  const cells = ["", "", "number", "number", "", "wide"].map((name) => el("td", { class: name }));
  fill(cells[0], componentLink(place, first.id));
  fill(cells[4], el("code", {}, plain(first.subject, 120)));
  let state = "";
  return {
    root: el("tr", {}, cells),
    /** @param {any} one */
    update(one) {
      if (one.state !== state) {
        state = one.state;
        fill(cells[1], badge(stateOf(state)));
      }
      const age = ageOf(one, place.now());
      say(cells[2], age === null ? "" : duration(age));
      say(cells[3], one.attempt > 1 ? String(one.attempt) : "");
      say(cells[5], plain(one.error ?? one.message, 200));
      cells[5].className = one.error ? "wide error" : "wide";
    },
  };
}

/** Signs of events; what has none is an order. @type {Record<string, string>} */
const EVENTS = { completed: "completed", errored: "errored", failed: "retrying", sent: "running", skipped: "skipped", gated: "gated", due: "waiting" };

/** What happened, the last first. @param {Place} place @returns {View} */
export function eventsView(place) {
  const { root } = place;
  const only = choice("Show", [["", "All events"], ["orders", "Orders and the build"], ["errors", "Failures"]], "");
  const older = el("button", { type: "button", hidden: true }, "Earlier"), total = el("p", { class: "quiet", role: "status" });
  fill(root, el("div", { class: "tools" }, only, total));
  const body = table(root, "Events", ["Time", "Event", "Component", ">Took", "What"]);
  root.append(older);
  /** @type {any[]} */
  let events = [];
  let asked = 0, stale = false;
  const rows = new Rows(body, (event) => eventRow(place, event));
  let asking = new AbortController();

  const fits = (/** @type {any} */ event) => only.value === "" || (only.value === "errors" ? ["errored", "failed"].includes(event.event) : event.component === undefined || event.event === "order");
  function show() {
    const shown = events.filter(fits).slice(-2_000).reverse();
    rows.show(shown, (event) => String(event.n));
    const all = Math.max(events.at(-1)?.n ?? 0, shown.length);
    say(total, events.length ? `${count(shown.length)} of ${counted(all, "event")}` : "Nothing has happened yet.");
    older.hidden = !events.length || events[0].n <= 1;
  }
  async function load(/** @type {number} */ after) {
    asking.abort();
    asking = new AbortController();
    asked = Date.now();
    stale = false;
    try {
      const page = await ask(apiUrl(place.id, "events", { after, limit: 500 }), { signal: asking.signal });
      take(page.events);
    } catch (error) {
      failed(root, error);
    }
  }
  function take(/** @type {any[]} */ more) {
    if (!more.length) return show();
    // The numbers of the last ones may have moved: a page takes the place of all that it spans.
    const [first, last] = [more[0].n, more[more.length - 1].n];
    events = [...events.filter((event) => event.n < first), ...more, ...events.filter((event) => event.n > last)];
    rows.forget();
    show();
  }
  only.addEventListener("input", show);
  older.addEventListener("click", () => load(Math.max(0, events[0].n - 501)));
  load(-1);
  return {
    update({ events: more, states }) { stale ||= more?.length > 0 || states !== ""; },
    tick() { if (stale && Date.now() - asked > FRESH) load(-1); },
    close() { asking.abort(); },
  };
}

/** @param {Place} place @param {any} event */
function eventRow(place, event) {
  const word = event.event === "order" ? event.order : event.event;
  const sign = EVENTS[event.event] && stateOf(EVENTS[event.event]);
  const who = event.by && `by ${plain(event.by, 80)}${event.vouched === false ? " (as they say)" : ""}`;
  const what = [who, event.reason && `“${plain(event.reason, 200)}”`, event.attempt > 1 && `attempt ${event.attempt}`, event.error && plain(event.error, 400)].filter(Boolean).join(", ");
  return {
    root: el("tr", {}, el("td", { class: "time" }, clock(event.time, place.now())),
      el("td", {}, badge({ sign: sign ? sign.sign : "•", css: sign ? sign.css : "order", word: plain(word, 40) })),
      el("td", {}, event.component !== undefined && componentLink(place, event.component)),
      el("td", { class: "number" }, event.seconds !== undefined && event.seconds !== null && duration(event.seconds)),
      el("td", { class: event.error ? "wide error" : "wide" }, what)),
    update() {},
  };
}

/** The report of a build that has ended; its secrets are masked by the service. @param {Place} place @returns {View} */
export function reportView(place) {
  const { root } = place, asking = new AbortController();
  let loaded = false;
  async function load(/** @type {any} */ from = undefined, /** @type {any} */ identity = undefined) {
    try {
      const page = await ask(apiUrl(place.id, "report", { from, identity, limit: 100 }), { signal: asking.signal });
      if (from === undefined) {
        fill(root, el("p", { class: "quiet" }, `Run ${count(page.run)}, ${plain(page.status)}.${page.masked ? " Secrets are masked." : ""}`));
        if (page.build) root.append(entry("The build", page.build, true));
      }
      for (const list of ["changes", "components", "edges"]) {
        for (const one of page[list] ?? []) root.append(entry(list === "edges" ? `${one.source} → ${one.destination}` : one._component_id ?? "", one, false, list));
      }
      if (page.next !== null && page.next !== undefined) {
        const more = el("button", { type: "button", onclick: () => { more.remove(); load(page.next, page.identity); } }, "Show more");
        root.append(more);
      }
      loaded = true;
    } catch (error) {
      if (error.status === 409) fill(root, el("p", { class: "empty" }, "The report is written when the build has ended."));
      else failed(root, error);
    }
  }
  fill(root, el("p", { class: "quiet" }, "Loading …"));
  load();
  return {
    update({ status }) { if (!loaded && status?.status) load(); },
    close() { asking.abort(); },
  };
}

/** @param {string} title @param {any} document @param {boolean} open @param {string} [list] */
function entry(title, document, open, list = "") {
  const text = el("pre", { tabindex: "0", "aria-label": `JSON of ${idText(title)}` });
  const made = el("details", { class: "entry", open }, el("summary", {}, list && el("span", { class: "quiet" }, `${list.replace(/s$/, "")} `), idText(title), document._state && [" ", badge(stateOf(document._state))]), text);
  // A report of thousands of entries is written out where somebody opens one.
  const write = () => { if (made.open) text.textContent = JSON.stringify(document, null, 2); };
  made.addEventListener("toggle", write);
  write();
  return made;
}

/** What was predicted beside what happened. @param {Place} place @returns {View} */
export function planView(place) {
  const { root } = place, asking = new AbortController();
  let asked = 0;
  async function load() {
    asked = Date.now();
    try {
      const answer = await ask(apiUrl(place.id, "plan"), { signal: asking.signal });
      const scrolled = root.scrollTop;
      show(answer);
      root.scrollTop = scrolled;
    } catch (error) {
      failed(root, error);
    }
  }
  function show(/** @type {any} */ answer) {
    const { plan } = answer;
    fill(root, el("dl", { class: "figures" }, [["Predicted", duration(answer.seconds)], ["Took so far", duration(answer.took)], ["At the very least", duration(plan.lower_bound)], ["Waves", count(plan.waves?.length)]]
      .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("b", {}, value))))));
    root.append(el("h2", {}, "The predicted critical path"));
    const path = table(root, "Predicted critical path", ["Component", ">Predicted", ">Took", ">Difference"]);
    fill(path, answer.predicted_path.map((/** @type {any} */ one) => el("tr", {}, el("td", {}, componentLink(place, one.id)), number(one.seconds), number(one.actual), difference(one.seconds, one.actual))));
    root.append(el("h2", {}, "The critical path as it is"));
    const real = table(root, "Critical path", ["Component", ">Took"]);
    fill(real, answer.critical_path.map((/** @type {any} */ one) => el("tr", {}, el("td", {}, componentLink(place, one.id)), number(one.seconds))));
    root.append(el("h2", {}, "Requests by subject"));
    const subjects = table(root, "Requests by subject", ["Subject", ">Components", ">Done", ">Predicted", "Source", ">Mean", ">Longest", ">Difference"]);
    fill(subjects, answer.subjects.map((/** @type {any} */ one) => el("tr", {}, el("td", {}, el("code", {}, plain(one.subject, 160))), el("td", { class: "number" }, count(one.components)), el("td", { class: "number" }, count(one.done)),
      number(one.predicted), el("td", {}, plain(one.source)), number(one.mean), number(one.longest), difference(one.predicted, one.mean))));
    const doubts = [...(plan.unresolved ?? []), ...(plan.unreachable ?? [])];
    if (doubts.length) root.append(el("h2", {}, "What the plan could not tell"), el("ul", { class: "plain" }, doubts.slice(0, 50).map((one) => el("li", {}, componentLink(place, one.component), " ", plain(one.why, 300)))));
  }
  fill(root, el("p", { class: "quiet" }, "Loading …"));
  load();
  return {
    tick() { if (Date.now() - asked > 15_000 && !place.status()?.ended) load(); },
    close() { asking.abort(); },
  };
}

/** @param {number | null | undefined} seconds */
function number(seconds) { return el("td", { class: "number" }, seconds === null || seconds === undefined ? "" : duration(seconds)); }

/** @param {number} predicted @param {number | null | undefined} actual */
function difference(predicted, actual) {
  if (actual === null || actual === undefined) return el("td");
  const more = actual - predicted, words = Math.abs(more) < 0.05 ? "as predicted" : `${duration(Math.abs(more))} ${more > 0 ? "longer" : "shorter"}`;
  return el("td", { class: more > predicted * 0.5 && more > 0.05 ? "number late" : "number" }, words);
}
