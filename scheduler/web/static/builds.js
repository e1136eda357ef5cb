// The page of all builds.
import { ask, BASE, buildUrl } from "./api.js";
import { badge, bar, debounced, el, fill, idText, Rows, say, showBar } from "./dom.js";
import { clock, count, counted, duration, percent, plain } from "./format.js";
import { Live } from "./live.js";
import { apart, isOver, settled, statusOf } from "./states.js";

const PAGE = 100, MOST = 1_000; // builds of an answer
const ACTIVE = ["running", "paused", "halted"], FAILED = ["errored", "cancelled", "quarantined"];

/** Builds of a group, by the numbers of each status. @param {string} group value of the choice @param {Record<string, number>} statuses */
export function groupSize(group, statuses) {
  const sum = (/** @type {string[]} */ names) => names.reduce((total, name) => total + (statuses[name] ?? 0), 0);
  if (group === "active") return sum(ACTIVE);
  if (group === "done") return sum(["done"]);
  return group ? sum(FAILED) : sum(Object.keys(statuses));
}

/** Whether a build is in a group. @param {string} group @param {string} status */
export function isIn(group, status) {
  if (!group) return true;
  return group === "active" ? ACTIVE.includes(status) : group === "done" ? status === "done" : FAILED.includes(status);
}

/** Builds as they are listed: those that run, then the newest. @param {any} a @param {any} b */
export function inOrder(a, b) {
  return Number(isOver(a.status)) - Number(isOver(b.status)) || (b.accepted ?? 0) - (a.accepted ?? 0) || (a.id < b.id ? -1 : 1);
}

/** Whether a search finds a build, as the service's does. @param {string} search @param {any} build */
export function isFound(search, build) {
  const sought = search.toLowerCase();
  return ["id", "name", "action", "owner", "error"].some((name) => String(build[name] ?? "").toLowerCase().includes(sought));
}

/** @param {(text: string, cause?: string) => void} banner */
export function showBuilds(banner) {
  const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
  const form = /** @type {HTMLFormElement} */ (byId("tools")), more = /** @type {HTMLButtonElement} */ (byId("more"));
  const rows = new Rows(byId("builds"), buildRow);
  /** @type {Map<string, any>} */
  const known = new Map(); // what the stream tells of
  /** @type {{builds: any[], matching: number, next: string|null} | null} */
  let asked = null; // what a search has found; null where the stream's builds are all there is to show
  let skew = 0; // s, of the service's clock against ours
  let total = 0;
  /** @type {AbortController | undefined} */
  let asking;

  const chosen = () => ({ group: String(new FormData(form).get("state") ?? ""), search: String(new FormData(form).get("search") ?? "").trim() });

  function show() {
    const { group, search } = chosen();
    const now = Date.now() / 1000 + skew;
    // What came since it was asked for is shown, too; and a build that has left its group meanwhile is not.
    const listed = new Map((asked?.builds ?? []).map((build) => [build.id, build]));
    for (const build of known.values()) if (isFound(search, build)) listed.set(build.id, build);
    const shown = [...listed.values()].filter((build) => isIn(group, build.status)).sort(inOrder);
    rows.show(shown.map((build) => ({ ...build, now })), (build) => build.id);
    const matching = asked?.matching ?? total;
    say(byId("matching"), `${count(shown.length)}${matching > shown.length ? ` of ${counted(matching, "build")}` : ` build${shown.length === 1 ? "" : "s"}`}`);
    more.hidden = !(asked ? asked.next : total > known.size);
    const empty = byId("empty");
    empty.hidden = shown.length > 0;
    say(empty, search ? `No build matches “${plain(search, 60)}”.` : group ? "No build is in this state." : "No builds yet. Submit one with: scheduler submit FILE");
  }

  /** @param {Record<string, number>} statuses */
  function showSizes(statuses) {
    total = groupSize("", statuses);
    for (const element of form.querySelectorAll("[data-count]")) say(element, count(groupSize(element.getAttribute("data-count") ?? "", statuses)));
  }

  /** @param {string | null} [after] where the next page begins @param {boolean} [further] whether all are listed, beyond those of the stream */
  async function find(after, further = false) {
    const { group, search } = chosen();
    asking?.abort();
    if (!group && !search && !further) {
      asked = null;
      show();
      return;
    }
    asking = new AbortController();
    try {
      const limit = further && !after ? Math.min(known.size + PAGE, MOST) : PAGE;
      const query = new URLSearchParams({ state: group === "active" ? ACTIVE.join() : group, search, limit: String(limit), ...(after ? { after } : {}) });
      const page = await ask(`${BASE}api/builds?${query}`, { signal: asking.signal });
      asked = { ...page, builds: after ? [...(asked?.builds ?? []), ...page.builds] : page.builds };
      if (asked) asked.builds = [...new Map(asked.builds.map((build) => [build.id, build])).values()];
      showSizes(page.statuses);
      banner("", "search");
      show();
    } catch (error) {
      if (error.name !== "AbortError") banner(plain(error.message), "search");
    }
  }

  const findSoon = debounced(200, () => {
    const { group, search } = chosen();
    const query = new URLSearchParams([...(group ? [["state", group]] : []), ...(search ? [["search", search]] : [])]);
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    find();
  });
  form.addEventListener("input", findSoon);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => find(asked?.next, true));

  /** @param {any} data */
  function take(data) {
    skew = data.now - Date.now() / 1000;
    for (const build of data.builds ?? []) known.set(build.id, build);
    for (const id of data.gone ?? []) known.delete(id);
    if (data.statuses) showSizes(data.statuses);
    if (data.trouble !== undefined && data.trouble !== null) banner(data.trouble && `What is shown may be old: ${plain(data.trouble, 400)}`, "trouble");
    if (data.silent) banner(data.silent.length ? `No answer from ${data.silent.map((/** @type {any} */ one) => plain(one.name ?? one.instance)).join(", ")}: builds there are missing.` : "", "silent");
    show();
  }

  const query = new URLSearchParams(location.search);
  /** @type {HTMLInputElement} */ (byId("search")).value = query.get("search") ?? "";
  for (const choice of form.querySelectorAll("input")) if (choice.name === "state" && choice.value === query.get("state")) choice.checked = true;
  if (query.size) find();
  new Live(`${BASE}api/stream`, {
    snapshot: (data) => { known.clear(); take(data); if (asked) find(); },
    update: take,
  }, banner, `${BASE}api/session`);
  setInterval(() => { if (!document.hidden) show(); }, 1_000);
}

/** @param {any} first */
function buildRow(first) {
  const cells = ["", "", "", "", "number", "number", "", ""].map((name) => el("td", { class: name }));
  const labels = ["Build", "Status", "Progress", "Waits for", "Left", "Took", "Began", "Owner"];
  cells.forEach((cell, n) => cell.setAttribute("data-label", labels[n]));
  const name = el("span", { class: "quiet" }), shares = el("span", { class: "number" }), strip = bar({}, 0);
  fill(cells[0], el("a", { href: buildUrl(first.id) }, idText(first.id)), name);
  fill(cells[2], strip, shares);
  let status = "";
  return {
    root: el("tr", {}, cells),
    /** @param {any} build */
    update(build) {
      const over = isOver(build.status), counts = build.counts ?? {};
      if (status !== build.status) {
        status = build.status;
        fill(cells[1], badge(statusOf(status)));
      }
      say(name, [build.name === build.id ? "" : plain(build.name, 80), plain(build.action, 40)].filter(Boolean).join(" · "));
      showBar(strip, build.counts ? apart(build) : {}, build.total ?? 0);
      say(shares, build.total === undefined ? "" : `${percent(over && status === "done" ? build.total : settled(counts), build.total)} of ${count(build.total)}`);
      say(cells[3], plain(over ? build.error : build.waiting, 160));
      cells[3].title = plain(over ? build.error : build.waiting, 1_000);
      say(cells[4], over ? "" : build.overdue ? `late by ${duration(build.overdue)}` : build.eta === null || build.eta === undefined ? "" : duration(build.eta));
      say(cells[5], build.accepted === undefined ? "" : duration((build.ended ?? build.now) - build.accepted));
      say(cells[6], build.accepted === undefined ? "" : clock(build.accepted, build.now));
      say(cells[7], plain(build.owner, 60));
    },
  };
}
