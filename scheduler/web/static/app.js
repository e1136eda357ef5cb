// Entry: shows the page that the service has sent the frame of.
import { ask, BASE } from "./api.js";
import { showBuilds } from "./builds.js";
import { showBuild } from "./build.js";
import { el } from "./dom.js";

/** What stands on top of the page, by its cause. @type {Map<string, string>} */
const said = new Map();

/** Say something on top of the page until its cause says nothing any more. @param {string} text @param {string} [cause] a connection that is lost, if none is named */
function banner(text, cause = "connection") {
  said.set(cause, text);
  const element = document.getElementById("banner"), shown = [...said.values()].filter(Boolean).join(" ");
  if (!element || element.textContent === shown) return;
  element.textContent = shown;
  element.hidden = !shown;
}

/** Who is here, and the way in or out. */
async function showUser() {
  const who = document.getElementById("who"), note = document.getElementById("note");
  if (!who) return;
  const session = await ask(`${BASE}api/session`).catch(() => null); // the stream tells if the service is away
  if (note && session?.lists_ended === false) note.hidden = false;
  if (session?.login && !session.vouched) {
    who.append(el("form", { method: "post", action: `${BASE}logout` }, el("button", { type: "submit" }, "Log out")));
  }
}

/** Say whose clock all times are by: two who talk about a build may sit in two time zones. */
function showZone() {
  const element = document.getElementById("zone");
  if (element) element.textContent = `Times: ${Intl.DateTimeFormat().resolvedOptions().timeZone}`;
}

const page = document.body.dataset.page;
showZone();
showUser();
if (page === "builds") showBuilds(banner);
else if (page === "build") showBuild(banner);
else {
  const next = /** @type {HTMLInputElement | null} */ (document.getElementById("next"));
  if (next) next.value = new URLSearchParams(location.search).get("next") ?? "";
}
