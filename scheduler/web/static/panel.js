// One component beside the view: where it stands, why, and what it is connected to.
import { apiUrl, ask, buildUrl } from "./api.js";
import { badge, el, fill, idText } from "./dom.js";
import { clock, counted, duration, plain } from "./format.js";
import { orderButtons, ordersOfComponent } from "./orders.js";
import { stateOf } from "./states.js";

const NEIGHBOURS = 12;

/** Reasons as `why` gives them, each with its cures. @param {any[]} reasons */
export function reasonList(reasons) {
  if (!reasons.length) return el("p", { class: "quiet" }, "Nothing is in its way.");
  return el("ul", { class: "reasons" }, reasons.map((reason) => el("li", {},
    el("span", {}, reason.component !== undefined && [el("code", {}, idText(reason.component)), " "], plain(reason.text, 1_000)),
    reason.seconds > 0 && el("span", { class: "quiet" }, ` for ${duration(reason.seconds)}`),
    reason.cures?.length > 0 && el("ul", { class: "cures", "aria-label": "Commands that may help" }, reason.cures.map((/** @type {string} */ cure) => el("li", {}, el("code", {}, plain(cure))))))));
}

export class Panel {
  /**
   * @param {HTMLElement} root @param {string} build id
   * @param {{open: (component: string) => void, close: () => void, show: (component: string, tab: string) => void}} on
   */
  constructor(root, build, on) {
    this.root = root;
    this.build = build;
    this.on = on;
    this.component = ""; // "" is an id too, but not one that a build may have
    root.addEventListener("keydown", (event) => { if (event.key === "Escape") on.close(); });
  }

  get isOpen() { return !this.root.hidden; }

  /** @param {string} component @param {boolean} [focus] */
  async show(component, focus = false) {
    const first = component !== this.component || this.root.hidden;
    this.component = component;
    this.root.hidden = false;
    this.root.setAttribute("aria-label", `Component ${idText(component)}`);
    if (first) fill(this.root, this.head(component, null), el("p", { class: "quiet" }, "Loading …"));
    if (focus) this.root.querySelector("button")?.focus();
    try {
      const detail = await ask(apiUrl(this.build, `components/${encodeURIComponent(component)}`));
      if (this.component === component && this.isOpen) this.fill(detail);
    } catch (error) {
      if (this.component === component) fill(this.root, this.head(component, null), el("p", { class: "alert", role: "alert" }, plain(error.message)));
    }
  }

  hide() {
    this.root.hidden = true;
    this.component = "";
  }

  /** Ask again, where the component is one of those that changed. */
  refresh() { if (this.isOpen) this.show(this.component); }

  /** @param {string} component @param {string | null} state */
  head(component, state) {
    return el("div", { class: "head" },
      el("h2", {}, idText(component)), state !== null && badge(stateOf(state)),
      el("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => this.on.close() }, "✕"));
  }

  /** @param {any} detail */
  fill(detail) {
    const { component, now, why } = detail, focused = this.focusName();
    const facts = [
      ["Subject", component.subject && el("code", {}, plain(component.subject, 200))],
      ["Attempt", component.attempt > 1 ? component.attempt : null],
      ["Due", component.due && clock(component.due, now)],
      ["Sent", component.sent && clock(component.sent, now)],
      ["Ended", component.ended && clock(component.ended, now)],
      ["Waited", component.due && duration((component.sent ?? component.ended ?? now) - component.due)],
      ["Worked", component.sent && duration((component.ended ?? now) - component.sent)],
      ["Again in", component.retry_at && duration(component.retry_at - now)],
      ["Fails in", component.expires && duration(component.expires - now)],
      ["Progress", component.progress !== undefined && `${Math.round(component.progress * 100)} %`],
      ["Says", component.message && plain(component.message, 300)],
      ["Heard", component.beat !== undefined && `${duration(component.beat)} ago`],
    ].filter(([, value]) => value);
    fill(this.root, this.head(component.id, component.state),
      el("div", { class: "buttons" },
        orderButtons(ordersOfComponent(component.state), this.build, component.id, () => this.refresh()),
        ["graph", "timeline"].map((tab) => el("button", { type: "button", onclick: () => this.on.show(component.id, tab) }, `In the ${tab}`)),
        el("a", { class: "link", href: buildUrl(this.build, "components", component.id) }, "Address of this")),
      component.error && el("p", { class: "alert text" }, plain(component.error, 2_000)),
      el("h3", {}, "Why"), reasonList(why),
      el("dl", { class: "facts" }, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
      component.failed?.length > 0 && [el("h3", {}, "Attempts that failed"), el("ul", { class: "plain" },
        component.failed.map((/** @type {any} */ one, /** @type {number} */ n) => el("li", {}, `${n + 1}: ${clock(one.sent, now)}, after ${duration(one.failed - one.sent)}`)))],
      this.neighbours("Needs", detail.needs), this.neighbours("Needed by", detail.needed_by));
    if (focused) (/** @type {HTMLElement | null} */ (this.root.querySelector(focused)))?.focus();
  }

  /** The button that has the focus, to be found again when all of it is made again. */
  focusName() {
    const at = document.activeElement;
    return at instanceof HTMLElement && this.root.contains(at) && at.classList.contains("close") ? ".close" : "";
  }

  /** @param {string} title @param {any[]} list */
  neighbours(title, list) {
    if (!list.length) return null;
    const items = list.map((one) => el("li", {}, el("span", { class: `sign s-${stateOf(one.state).css}`, title: stateOf(one.state).word, role: "img", "aria-label": stateOf(one.state).word }, stateOf(one.state).sign),
      el("a", { href: buildUrl(this.build, "components", one.id), onclick: (/** @type {MouseEvent} */ event) => this.follow(event, one.id) }, idText(one.id))));
    const rest = items.slice(NEIGHBOURS);
    return [el("h3", {}, `${title} ${counted(list.length, "component")}`), el("ul", { class: "plain" }, items.slice(0, NEIGHBOURS)),
      rest.length > 0 && el("details", {}, el("summary", {}, `${rest.length} more`), el("ul", { class: "plain" }, rest))];
  }

  /** @param {MouseEvent} event @param {string} id */
  follow(event, id) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    this.on.open(id);
  }
}
