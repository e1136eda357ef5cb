// The page of one build: the board above, and one of its views.
import { apiUrl, ask, BASE, buildUrl } from "./api.js";
import { Board } from "./board.js";
import { debounced, el, fill, idText, say } from "./dom.js";
import { count, counted, plain } from "./format.js";
import { Graph } from "./graph.js";
import { Live } from "./live.js";
import { Model } from "./model.js";
import { Panel } from "./panel.js";
import { STATES, isOver } from "./states.js";
import { componentsView, eventsView, planView, reportView } from "./tables.js";
import { Timeline } from "./timeline.js";

/** @typedef {import("./tables.js").View} View */

/** @type {Record<string, string>} */
const TABS = { graph: "Graph", timeline: "Timeline", components: "Components", events: "Events", report: "Report", plan: "Plan" };
const FRESH = 5_000; // ms between two questions for a timeline that grows
const MOST_FOUND = 2_000;

/** What an address says: build, view and component. @param {string} path below the base @param {string} query */
export function parsed(path, query) {
  const [, id = "", tab = "", component] = path.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  return { id, tab: Object.hasOwn(TABS, tab) ? tab : "graph", component: component ?? new URLSearchParams(query).get("component") };
}

/** @param {(text: string, cause?: string) => void} banner */
export function showBuild(banner) { new BuildPage(banner); }

class BuildPage {
  /** @param {(text: string, cause?: string) => void} banner */
  constructor(banner) {
    this.banner = banner;
    const { id, tab, component } = this.address();
    this.id = id;
    this.root = /** @type {HTMLElement} */ (document.getElementById("view"));
    this.status = /** @type {any} */ (null);
    this.skew = 0; // s, of the owner's clock against ours
    /** @type {string[]} */
    this.letters = []; // of all components, in the order of the layout
    this.stateFilter = "";
    /** @type {Promise<Model> | undefined} */
    this.layout = undefined;
    /** @type {Model | undefined} */
    this.model = undefined;
    /** @type {string | undefined} */
    this.key = undefined; // of the layout that the stream's indices are of
    this.view = /** @type {View | null} */ (null);
    this.tab = "";
    this.board = new Board(id, { open: (one) => this.open(one), filter: (state) => this.filter(state), ordered: () => this.ordered() });
    this.panel = new Panel(/** @type {HTMLElement} */ (document.getElementById("panel")), id, {
      open: (one) => this.open(one), close: () => this.select(null), show: (one, to) => this.go(to, one),
    });
    this.tabs();
    window.addEventListener("popstate", () => this.arrive());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.view?.repaint?.());
    document.getElementById("json")?.setAttribute("href", apiUrl(id));
    this.connect();
    this.show(tab, component);
    setInterval(() => this.tick(), 1_000);
  }

  address() { return parsed(location.pathname.slice(BASE.length), location.search); }

  now() { return Date.now() / 1000 + this.skew; }

  connect() {
    this.live?.close();
    this.live = new Live(apiUrl(this.id, "stream"), {
      snapshot: (data) => this.snapshot(data),
      update: (data) => this.update(data),
      end: (reason) => { if (reason === "gone") this.banner("This build is not known here any more.", "build"); },
    }, this.banner, apiUrl(this.id));
  }

  /** An order may bring a build back that had ended, whose stream is closed. */
  ordered() { if (this.live?.closed) this.connect(); }

  /** @param {any} data */
  snapshot(data) {
    this.banner("", "build");
    this.letters = [...data.states];
    if (this.key !== undefined && this.key !== data.key) this.dropModel();
    this.key = data.key;
    this.model?.setAll(data.states);
    this.status = data.status;
    this.after({ rows: [], states: data.states, status: data.status, trouble: data.trouble });
  }

  /** @param {any} data */
  update(data) {
    if (!this.status) return;
    const { rows = [], states = "", status = {} } = data;
    for (const [name, value] of Object.entries(status)) if (value === null && !(name in { eta: 0, overdue: 0, order: 0 })) delete this.status[name]; else this.status[name] = value;
    const changed = rows.filter((/** @type {[number, string]} */ [index, letter]) => !this.model || this.model.set(index, letter));
    for (const [index, letter] of rows) this.letters[index] = letter;
    if (states) {
      this.letters = [...states];
      this.model?.setAll(states);
    }
    this.after({ rows: changed, states, status, events: data.events, trouble: data.trouble });
  }

  /** @param {any} data */
  after(data) {
    if (data.status?.now !== undefined) this.skew = data.status.now - Date.now() / 1000;
    if (data.trouble !== undefined && data.trouble !== null) this.banner(data.trouble && `What is shown may be old: ${plain(data.trouble, 400)}`, "trouble");
    this.board.show(this.status, this.now());
    // What could not be had while the owner was away can be had now.
    if (data.trouble === "" && this.root.querySelector(":scope > [role=alert]")) this.show(this.tab, this.address().component, true);
    this.view?.update?.(data);
    const open = this.panel.isOpen && this.model ? this.model.indexOf(this.panel.component) : -1;
    if (this.panel.isOpen && (data.states || data.rows.some((/** @type {any} */ [index]) => index === open))) this.refreshPanel();
  }

  refreshPanel = debounced(300, () => this.panel.refresh());

  tick() {
    if (document.hidden) return;
    if (this.status) this.board.show(this.status, this.now());
    this.view?.tick?.();
  }

  /** Layout and states, which the graph and the timeline share. @returns {Promise<Model>} */
  async needModel() {
    const asked = this.layout ??= ask(apiUrl(this.id, "layout")).then((layout) => {
      const model = new Model(layout);
      // The stream may have told of other components by now: then it is asked for again.
      if (this.layout === asked) this.model = model;
      model.setAll(this.letters);
      return model;
    });
    try {
      return await asked;
    } catch (error) {
      if (this.layout === asked) this.layout = undefined;
      throw error;
    }
  }

  /** The components are others now: all that was drawn of them is made again. */
  dropModel() {
    this.layout = this.model = undefined;
    if (this.tab === "graph" || this.tab === "timeline") this.show(this.tab, this.address().component, true);
  }

  tabs() {
    fill(/** @type {HTMLElement} */ (document.getElementById("tabs")), Object.entries(TABS).map(([tab, word]) => el("a", {
      href: buildUrl(this.id, tab), "data-tab": tab,
      onclick: (/** @type {MouseEvent} */ event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        this.stateFilter = "";
        this.go(tab, this.panel.isOpen ? this.panel.component : null);
      },
    }, word)));
  }

  /** @param {string} tab @param {string | null} component */
  go(tab, component) {
    history.pushState(null, "", this.urlOf(tab, component));
    this.show(tab, component);
  }

  /** @param {string} tab @param {string | null} component */
  urlOf(tab, component) {
    if (component === null) return buildUrl(this.id, tab);
    return tab === "components" ? buildUrl(this.id, tab, component) : `${buildUrl(this.id, tab)}?component=${encodeURIComponent(component)}`;
  }

  arrive() {
    const { tab, component } = this.address();
    this.show(tab, component);
  }

  /** @param {string} component */
  open(component) { this.select(component, true); }

  /** @param {string} state */
  filter(state) {
    this.stateFilter = state;
    this.tab = "";
    this.go("components", null);
  }

  /** Select a component where we are, or none. @param {string | null} component @param {boolean} [move] whether to move it into view */
  select(component, move = false) {
    history.replaceState(null, "", this.urlOf(this.tab, component));
    if (component === null) {
      const inside = this.panel.root.contains(document.activeElement);
      this.panel.hide();
      if (inside) this.root.focus();
    } else {
      this.panel.show(component);
    }
    if (move || component === null) this.view?.select?.(component ?? "");
  }

  /** @param {string} tab @param {string | null} component @param {boolean} [again] */
  show(tab, component, again = false) {
    for (const link of document.querySelectorAll("#tabs a")) {
      if (link.getAttribute("data-tab") === tab) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    }
    if (component === null) this.panel.hide(); else this.panel.show(component);
    if (tab === this.tab && !again) {
      this.view?.select?.(component ?? "");
      return;
    }
    this.view?.close();
    this.view = null;
    this.tab = tab;
    this.root.replaceChildren();
    this.root.className = `view view-${tab}`;
    this.root.setAttribute("aria-label", TABS[tab]);
    const place = { id: this.id, root: this.root, status: () => this.status, open: (/** @type {string} */ one) => this.open(one), now: () => this.now() };
    if (tab === "graph" || tab === "timeline") this.draw(tab, component);
    else if (tab === "components") this.view = componentsView(place, this.stateFilter);
    else this.view = (tab === "events" ? eventsView : tab === "report" ? reportView : planView)(place);
  }

  /** @param {string} tab @param {string | null} component */
  async draw(tab, component) {
    fill(this.root, el("p", { class: "quiet", role: "status" }, "Loading …"));
    try {
      const [model, times] = await Promise.all([this.needModel(), tab === "timeline" ? ask(apiUrl(this.id, "timeline")) : null]);
      // Another view was chosen meanwhile, or the components are others.
      if (this.tab !== tab || this.view || model !== this.model) return;
      this.view = tab === "graph" ? this.graph(model) : this.timeline(model, times);
      if (component !== null) this.view.select?.(component);
    } catch (error) {
      if (this.tab === tab) fill(this.root, el("p", { class: "alert", role: "alert" }, plain(error.message)), el("button", { type: "button", onclick: () => this.draw(tab, component) }, "Try again"));
    }
  }

  /** What the graph and the timeline have in common around the canvas. @param {any[]} tools @param {string} help */
  stage(tools, help) {
    const host = el("div", { class: "canvas" }), hint = el("div", { class: "hint", "aria-hidden": "true" }), told = el("p", { class: "unseen", role: "status" });
    const zoom = (/** @type {string} */ sign, /** @type {string} */ label, /** @type {string} */ key) => el("button", { type: "button", "aria-label": label, title: label, onclick: () => surface()?.key(key, false) }, sign);
    /** @type {() => any} */
    let surface = () => null;
    fill(this.root, el("div", { class: "tools" }, tools, el("span", { class: "buttons" }, zoom("+", "Zoom in", "+"), zoom("−", "Zoom out", "-"), zoom("Fit", "Show everything", "0"))),
      el("div", { class: "stage" }, host, hint), el("p", { class: "quiet keys", id: "keys" }, help), told);
    return {
      host, told,
      use: (/** @type {() => any} */ get) => { surface = get; },
      hint: (/** @type {string} */ text, /** @type {number} */ x, /** @type {number} */ y) => {
        say(hint, text);
        hint.hidden = !text;
        const left = Math.min(x + 14, Math.max(0, host.clientWidth - hint.offsetWidth - 4));
        hint.style.transform = `translate(${left}px,${y + 34 > host.clientHeight ? y - 34 : y + 14}px)`;
      },
    };
  }

  /** @param {Model} model @returns {View} */
  graph(model) {
    const search = el("input", { type: "search", placeholder: "Find in the graph", "aria-label": "Find in the graph", spellcheck: "false", autocomplete: "off" });
    const found = el("span", { class: "quiet", role: "status" });
    const critical = el("input", { type: "checkbox", checked: true });
    const stage = this.stage([search, found, el("label", { class: "check" }, critical, "Critical path"), legend()],
      "Drag to move, wheel or + and − to zoom, 0 to see everything. Enter takes the first component of the critical path; then arrows lead along edges and the wave, Enter opens, Escape leaves; Shift and arrows move.");
    const graph = new Graph(stage.host, model, "keys", {
      select: (index) => this.selected(graph, index, stage.told), open: (index) => this.openAt(model, index), hint: stage.hint,
    });
    stage.use(() => graph.surface);
    critical.addEventListener("change", () => { graph.showCritical = critical.checked; graph.repaint(); });
    /** @type {number[]} */
    let matches = [];
    let at = -1;
    search.addEventListener("input", debounced(120, () => {
      matches = matching(model.ids, search.value.trim());
      at = -1;
      graph.find(matches);
      say(found, search.value.trim() ? counted(matches.length, "match").replace("matchs", "matches") : "");
    }));
    search.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter" || !matches.length) return;
      at = (at + (event.shiftKey ? matches.length - 1 : 1)) % matches.length;
      graph.go(matches[at]);
      say(found, `${count(at + 1)} of ${count(matches.length)}`);
    });
    return {
      update({ rows, states }) { if (states) graph.surface.refresh(); else graph.surface.touch(rows.map((/** @type {any} */ [index]) => index)); },
      repaint: () => graph.repaint(),
      select: (id) => graph.select(id ? model.indexOf(id) : -1, true),
      close: () => graph.close(),
    };
  }

  /** @param {Model} model @param {any} times @returns {View} */
  timeline(model, times) {
    const facts = el("span", { class: "quiet" });
    const stage = this.stage([facts, el("span", { class: "legend" }, [["critical", "critical path"], ["wait", "waiting"], ["band-pause", "paused"], ["band-outage", "outage"]]
      .map(([name, word]) => el("span", {}, el("i", { class: `key key-${name}` }), word)))],
    "Drag to move, wheel or + and − to zoom, 0 to see everything, Shift and wheel to scroll. Enter takes the first component of the critical path; then arrows lead to the one before and after in time, Enter opens, Escape leaves.");
    const timeline = new Timeline(stage.host, times, model, "keys", {
      select: (index) => this.selected(timeline, index, stage.told), open: (index) => this.openAt(model, index), hint: stage.hint,
    });
    stage.use(() => timeline.surface);
    say(facts, timeline.summary());
    let asked = Date.now(), stale = times.live, busy = false;
    const tick = async () => {
      if (!stale || busy || Date.now() - asked < FRESH) return;
      busy = true;
      asked = Date.now();
      try {
        const answer = await ask(apiUrl(this.id, "timeline"));
        stale = answer.live;
        timeline.update(answer);
        say(facts, timeline.summary());
      } catch { /* The stream tells that the service is away; the next tick asks again. */ }
      busy = false;
    };
    return {
      update() { stale = true; },
      tick,
      repaint: () => timeline.repaint(),
      select: (id) => timeline.select(id ? model.indexOf(id) : -1, true),
      close: () => timeline.close(),
    };
  }

  /** @param {Graph | Timeline} drawing @param {number} index @param {HTMLElement} told */
  selected(drawing, index, told) {
    const model = drawing.model;
    drawing.select(index, false);
    say(told, index < 0 ? "Nothing is selected." : `${idText(model.ids[index])}, ${STATES[model.state[index]].word}, ${plain(model.types[model.type[index]], 60)}, wave ${model.wave[index] + 1}; needs ${model.needs.of(index).length}, needed by ${model.dependents.of(index).length}.`);
    this.select(index < 0 ? null : model.ids[index]);
  }

  /** @param {Model} model @param {number} index */
  openAt(model, index) { this.panel.show(model.ids[index], true); }
}

function legend() {
  return el("span", { class: "legend" }, STATES.map((state) => el("span", {}, el("i", { class: `key fill-${state.name}` }, state.sign), state.word)));
}

/** Indices of ids that have all words of a text. @param {string[]} ids @param {string} text */
export function matching(ids, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean), found = [];
  if (!words.length) return [];
  for (let i = 0; i < ids.length && found.length < MOST_FOUND; i++) {
    const id = ids[i].toLowerCase();
    if (words.every((word) => id.includes(word))) found.push(i);
  }
  return found;
}
