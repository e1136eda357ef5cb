// Orders: what can be ordered, and the question before it is.
import { give, ORDERS } from "./api.js";
import { el, fill, idText, say } from "./dom.js";
import { isOver } from "./states.js";

/** @typedef {{order: string, word: string, told: string, hard?: boolean, output?: boolean, now?: string}} Order */

/** @type {Record<string, Order>} */
const KNOWN = {
  pause: { order: "pause", word: "Pause", told: "Nothing new is started until the build is resumed. What is in flight goes on." },
  resume: { order: "resume", word: "Resume", told: "The build goes on." },
  cancel: { order: "cancel", word: "Cancel", told: "Nothing new is started, what is in flight is awaited, and the build ends.", hard: true, now: "Do not wait for what is in flight: its outcome stays unknown" },
  retry: { order: "retry", word: "Retry", told: "What has failed is sent again." },
  skip: { order: "skip", word: "Skip", told: "The component counts as done, and the build goes on without it.", hard: true, output: true },
  approve: { order: "approve", word: "Approve", told: "The component is approved, and what depends on it may start." },
  reject: { order: "reject", word: "Reject", told: "The component fails, and the build stops.", hard: true },
};

/** Orders that make sense for a build. @param {any} status */
export function ordersOfBuild(status) {
  if (status.status === "quarantined") return ["retry"];
  if (isOver(status.status)) return status.status === "done" ? [] : ["retry"];
  const failed = status.counts.errored > 0 ? ["retry"] : [];
  return [...(status.paused ? ["resume"] : status.status === "halted" ? [] : ["pause"]), ...failed, "cancel"];
}

/** Orders that make sense for a component. @param {string} state */
export function ordersOfComponent(state) {
  return { gated: ["approve", "reject"], errored: ["retry", "skip"], retrying: ["retry", "skip"], waiting: ["skip"] }[state] ?? [];
}

/**
 * Buttons for orders; none where the service takes none from here.
 * @param {string[]} names @param {string} id of the build @param {string} [component] @param {() => void} [done]
 */
export function orderButtons(names, id, component, done) {
  if (ORDERS !== "yes") return [];
  return names.map((name) => el("button", {
    type: "button", class: KNOWN[name].hard ? "hard" : "", "aria-haspopup": "dialog",
    onclick: () => confirmOrder(KNOWN[name], id, component, done),
  }, KNOWN[name].word));
}

/** Ask, give the order, and tell what came of it. @param {Order} order @param {string} id @param {string} [component] @param {() => void} [done] */
function confirmOrder(order, id, component, done) {
  const reason = el("input", { id: "order-reason", name: "reason", type: "text", maxlength: "500", autocomplete: "off" });
  const output = order.output && el("textarea", { id: "order-output", name: "output", rows: "4", spellcheck: "false", placeholder: '{"vpc_aws_id": "vpc-1"}' });
  const now = order.now && el("input", { type: "checkbox", name: "now" });
  const said = el("p", { class: "alert", role: "alert" });
  const send = el("button", { type: "submit", class: order.hard ? "first hard" : "first" }, order.word);
  const close = el("button", { type: "button", onclick: () => dialog.close() }, "Back");
  const form = el("form", { method: "dialog" },
    el("h2", { id: "order-title" }, `${order.word} ${component === undefined ? "the build" : "the component"}?`),
    el("p", {}, el("code", {}, idText(component ?? id))),
    el("p", { class: "quiet" }, order.told),
    el("label", { for: "order-reason" }, "Reason ", el("span", { class: "quiet" }, "(optional, for the history)")), reason,
    output && [el("label", { for: "order-output" }, "Output ", el("span", { class: "quiet" }, "(optional: what its connector would have returned, as a JSON object)")), output],
    now && el("label", { class: "check" }, now, order.now),
    said,
    el("div", { class: "buttons" }, close, send));
  const dialog = el("dialog", { "aria-labelledby": "order-title", onclose: () => dialog.remove() }, form);
  form.addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault();
    let made;
    try {
      made = output && output.value.trim() ? readObject(output.value) : undefined;
    } catch (error) {
      say(said, error.message);
      output.focus();
      return;
    }
    send.disabled = true;
    say(said, "");
    try {
      const answer = await give(id, { order: order.order, component, output: made, reason: reason.value.trim() || undefined, now: now?.checked || undefined });
      fill(form, el("h2", { id: "order-title" }, "Done"), el("p", { role: "status" }, idText(answer.text)),
        el("div", { class: "buttons" }, el("button", { type: "button", class: "first", autofocus: true, onclick: () => dialog.close() }, "Close")));
      form.querySelector("button")?.focus();
      done?.();
    } catch (error) {
      say(said, error.status === 0 ? `${error.message}: whether it was carried out is unknown. Look at the events before you try again.` : error.message);
      send.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
}

/** @param {string} text */
function readObject(text) {
  let value;
  try { value = JSON.parse(text); } catch (error) { throw new Error(`Output: this is not JSON: ${error.message}`); }
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Error('Output: an object such as {"vpc_aws_id": "vpc-1"} is required');
  return value;
}
