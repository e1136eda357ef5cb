// Entry: shows the page that the service has sent the frame of.
import { showBuilds } from "./builds.js";
import { showBuild } from "./build.js";

/** What a connection that is lost says, on top of every page; nothing while all is well. @param {string} text */
function banner(text) {
  const element = document.getElementById("banner");
  if (!element) return;
  element.textContent = text;
  element.hidden = !text;
}

const page = document.body.dataset.page;
if (page === "builds") showBuilds(banner);
else if (page === "build") showBuild(banner);
else {
  const next = /** @type {HTMLInputElement | null} */ (document.getElementById("next"));
  if (next) next.value = new URLSearchParams(location.search).get("next") ?? "";
}
