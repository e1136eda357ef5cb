// The state of a build above its views: counts, times, what runs, what failed, what is asked of people.
import { apiUrl, ask, buildUrl } from "./api.js";
import { badge, el, fill, idText, say, showBar } from "./dom.js";
import { clock, count, duration, percent, plain } from "./format.js";
import { orderButtons, ordersOfBuild } from "./orders.js";
import { reasonList } from "./panel.js";
import { apart, BAR, isOver, settled, stateOf, statusOf } from "./states.js";

const SHOWN = 3; // entries of a list: what is below has to be seen, too

/** Who did it, in words. @param {any} order */
export function whoDid(order) {
  const who = plain(order.by ?? order.claim ?? "somebody", 80);
  const said = order.vouched ? "" : order.by ? " (as they say)" : "";
  return `${who}${said}${order.reason ? `: “${plain(order.reason, 200)}”` : ""}`;
}

/** The state of a build in a sentence, for those who hear it. @param {any} status */
export function sentence(status) {
  const { counts, total } = status, failed = counts.errored ? `, ${count(counts.errored)} failed` : "";
  return `Build ${statusOf(status.status).word}: ${percent(settled(counts), total)} settled${failed}.`;
}

export class Board {
  /** @param {string} id @param {{open: (component: string) => void, filter: (state: string) => void, ordered: () => void}} on */
  constructor(id, on) {
    this.id = id;
    this.on = on;
    this.said = "";
    this.status = "";
    this.key = ""; // of what the lists show
    this.names = ""; // of the orders that are offered
    this.part = /** @type {(name: string) => HTMLElement} */ ((name) => document.getElementById(name));
    this.part("title").textContent = idText(id);
    this.whyList = el("div", { class: "why", role: "status" });
    this.why = el("button", { type: "button", "aria-expanded": "false", onclick: () => this.askWhy() }, "Why?");
  }

  /** @param {any} status @param {number} now seconds since 1970, by the clock of the build's owner */
  show(status, now) {
    const over = isOver(status.status), { counts, total } = status;
    document.title = `${percent(settled(counts), total)} ${idText(this.id).slice(0, 60)} · scheduler`;
    if (this.status !== status.status) fill(this.part("status"), badge(statusOf(status.status)));
    this.status = status.status;
    say(this.part("facts"), [status.name === this.id ? "" : plain(status.name, 100), plain(status.action, 60), status.run > 1 ? `run ${status.run}` : "", status.owner ? `on ${plain(status.owner, 60)}` : ""].filter(Boolean).join(" · "));
    showBar(this.part("bar"), apart(status), total);
    this.figures([
      ["Settled", `${count(settled(counts))} of ${count(total)}`, percent(settled(counts), total)],
      [over ? "Took" : "Runs for", duration((status.ended ?? now) - status.accepted), ""],
      over ? ["Ended", clock(status.ended, now), ""] : ["Left", status.eta === null ? "unknown" : duration(Math.max(0, status.eta - (now - status.now))), status.overdue ? `late by ${duration(status.overdue)}` : ""],
      ["Began", clock(status.accepted, now), ""],
    ]);
    this.counts(status);
    this.alert(status, now);
    this.lists(status, now);
    this.buttons(status);
    this.tell(status);
  }

  /** @param {string[][]} figures */
  figures(figures) {
    const list = this.part("figures");
    if (list.children.length !== figures.length) fill(list, figures.map(() => el("div", {}, el("dt"), el("dd", {}, el("b"), " ", el("span", { class: "quiet" })))));
    figures.forEach(([name, value, more], n) => {
      const [dt, dd] = list.children[n].children;
      say(dt, name);
      say(dd.children[0], value);
      say(dd.children[1], more);
    });
  }

  /** @param {any} status */
  counts(status) {
    const list = this.part("counts"), names = BAR.filter((name) => name !== "gated" || status.gated);
    if (list.children.length !== names.length) {
      fill(list, names.map((name) => el("li", {}, el("button", { type: "button", class: "count", onclick: () => this.on.filter(name) }, badge(stateOf(name)), el("b", { class: "number" })))));
    }
    const counts = apart(status);
    names.forEach((name, n) => {
      say(/** @type {Element} */ (list.children[n].querySelector("b")), count(counts[name]));
      list.children[n].classList.toggle("none", !counts[name]);
    });
  }

  /** @param {any} status @param {number} now */
  alert(status, now) {
    const { order } = status, parts = [];
    if (status.paused && order?.verb === "pause") parts.push(`Paused by ${whoDid(order)}, at ${clock(order.time, now)}.`);
    else if (status.paused) parts.push("Paused.");
    if (status.status === "cancelled" && order?.verb === "cancel") parts.push(`Cancelled by ${whoDid(order)}.`);
    if (status.error) parts.push(plain(status.error, 600));
    if (status.report) parts.push(`The report ${plain(status.report)}.`);
    this.part("alert").hidden = !parts.length;
    say(this.part("alert"), parts.join(" "));
  }

  /** What people look for first, each in a list of its own, which is there only where it says something. @param {any} status @param {number} now */
  lists(status, now) {
    const { counts } = status;
    const made = [
      this.list("Awaits approval", status.gated ?? 0, status.gates, (id) => [this.link(id), el("span", { class: "buttons" }, orderButtons(["approve", "reject"], this.id, id, this.on.ordered))]),
      this.list("Failed", counts.errored, status.errors, (one) => [this.link(one.id), el("span", { class: "error", title: plain(one.error, 600) }, plain(one.error, 240))]),
      this.list("To be tried again", counts.retrying, status.retrying, (one) => [this.link(one.id), el("span", { class: "age number" }, one.retry_at ? `in ${duration(Math.max(0, one.retry_at - now))}` : ""), el("span", { class: "error", title: plain(one.error, 600) }, plain(one.error, 160))]),
      this.list("Running, the longest first", counts.running, status.running, (one) => [this.link(one.id), el("span", { class: "age number" }, one.sent ? duration(now - one.sent) : ""),
        (one.message || typeof one.progress === "number") && el("span", { class: "quiet" },
          typeof one.progress === "number" && [el("progress", { max: "1", value: one.progress, "aria-label": `Progress of ${idText(one.id)}` }), ` ${percent(one.progress, 1)} `], plain(one.message, 100))]),
      this.list("Limits reached", status.limits.length, status.limits, (one) => [el("code", {}, plain(one.limit, 120)), el("span", { class: "age number" }, `${count(one.waiting)} wait`)]),
    ].filter(Boolean);
    const key = JSON.stringify([status.gates, status.errors, status.retrying, status.running.map((/** @type {any} */ one) => [one.id, one.progress, one.message]), status.limits, counts, status.gated]);
    if (key === this.key) {
      this.ages(status, now);
      return;
    }
    // What has the focus stays: an update must not take a button from under a finger.
    if (this.part("lists").contains(document.activeElement) && this.key) {
      this.ages(status, now);
      return;
    }
    this.key = key;
    fill(this.part("lists"), made);
  }

  /** @param {any} status @param {number} now */
  ages(status, now) {
    const ages = this.part("lists").querySelectorAll("[data-list='Running, the longest first'] .age");
    ages.forEach((element, n) => { if (status.running[n]?.sent) say(element, duration(now - status.running[n].sent)); });
  }

  /** @param {string} title @param {number} total @param {any[]} items @param {(item: any) => any} row */
  list(title, total, items, row) {
    if (!items.length) return null;
    const more = Math.max(total, items.length) - Math.min(items.length, SHOWN);
    return el("section", { class: "list", "data-list": title }, el("h2", {}, title, " ", el("span", { class: "quiet number" }, count(Math.max(total, items.length)))),
      el("ul", { class: "plain" }, items.slice(0, SHOWN).map((item) => el("li", {}, row(item)))),
      more > 0 && el("p", { class: "quiet" }, `and ${count(more)} more`));
  }

  /** @param {string} id */
  link(id) {
    return el("a", { href: buildUrl(this.id, "components", id), onclick: (/** @type {MouseEvent} */ event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.on.open(id);
    } }, idText(id));
  }

  /** @param {any} status */
  buttons(status) {
    const names = ordersOfBuild(status).join();
    if (names === this.names) return;
    this.names = names;
    fill(this.part("orders"), this.why, orderButtons(ordersOfBuild(status), this.id, undefined, this.on.ordered));
  }

  async askWhy() {
    if (this.whyList.isConnected) {
      this.whyList.remove();
      this.why.setAttribute("aria-expanded", "false");
      return;
    }
    this.why.setAttribute("aria-expanded", "true");
    fill(this.whyList, el("p", { class: "quiet" }, "Asking …"));
    this.part("board").append(this.whyList);
    try {
      const { reasons, more } = await ask(apiUrl(this.id, "why"));
      fill(this.whyList, el("h2", {}, "Why it is where it is"), reasonList(reasons), more > 0 && el("p", { class: "quiet" }, `and ${count(more)} more`));
    } catch (error) {
      fill(this.whyList, el("p", { class: "alert" }, plain(error.message)));
    }
  }

  /** Tell those who hear the page what has changed: each tenth, each failure, and the end. @param {any} status */
  tell(status) {
    const { counts, total, status: word } = status;
    const step = `${word} ${Math.floor(10 * settled(counts) / Math.max(total, 1))} ${counts.errored} ${status.gated ?? 0}`;
    if (step === this.said) return;
    this.said = step;
    say(this.part("told"), `${sentence(status)}${status.gated ? ` ${count(status.gated)} await approval.` : ""}`);
  }
}
