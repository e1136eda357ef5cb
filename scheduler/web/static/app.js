// Entry: shows the page that the service has sent the frame of.
import { ask, BASE } from "./api.js";
import { showBuilds } from "./builds.js";
import { showBuild } from "./build.js";
import { el } from "./dom.js";

/** What a connection that is lost says, on top of every page; nothing while all is well. @param {string} text */
function banner(text) {
  const element = document.getElementById("banner");
  if (!element) return;
  element.textContent = text;
  element.hidden = !text;
}

/** Who is here, and the way in or out. */
async function showUser() {
  const who = document.getElementById("who");
  if (!who) return;
  const session = await ask(`${BASE}api/session`).catch(() => null); // the stream tells if the service is away
  if (session?.login && !session.vouched) {
    who.append(el("form", { method: "post", action: `${BASE}logout` }, el("button", { type: "submit" }, "Log out")));
  }
}

const page = document.body.dataset.page;
showUser();
if (page === "builds") showBuilds(banner);
else if (page === "build") showBuild(banner);
else {
  const next = /** @type {HTMLInputElement | null} */ (document.getElementById("next"));
  if (next) next.value = new URLSearchParams(location.search).get("next") ?? "";
}
