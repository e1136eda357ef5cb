// Questions to the service, and orders. All addresses are below the base that the page names.

/** @param {string} name */
function meta(name) { return document.querySelector(`meta[name="${name}"]`)?.getAttribute("content") ?? ""; }

export const BASE = meta("scheduler-base") || "/";
/** Whether the service takes orders from this page: `yes` or `no`. */
export const ORDERS = meta("scheduler-orders");

const DEADLINE = 20_000; // ms

/** Refusal of the service, or none of its answers. */
export class ApiError extends Error {
  /** @param {string} code @param {string} message @param {number} status */
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** Address of a page. @param {string} id @param {...string} more */
export function buildUrl(id, ...more) { return [`${BASE}builds/${encodeURIComponent(id)}`, ...more.map(encodeURIComponent)].join("/"); }

/** Address of what the service tells of a build. @param {string} id @param {string} [what] @param {Record<string, any>} [query] */
export function apiUrl(id, what = "", query = {}) {
  const asked = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const tail = asked.length ? `?${new URLSearchParams(asked.map(([name, value]) => [name, String(value)]))}` : "";
  return `${BASE}api/builds/${encodeURIComponent(id)}${what && `/${what}`}${tail}`;
}

/** Address at which a token is asked for; the page comes back here. */
export function loginUrl() { return `${BASE}login?next=${encodeURIComponent(location.pathname.slice(BASE.length))}`; }

/** @param {string} url @param {RequestInit} [init] @returns {Promise<any>} */
export async function ask(url, init = {}) {
  let response;
  try {
    const signal = init.signal ? AbortSignal.any([init.signal, AbortSignal.timeout(DEADLINE)]) : AbortSignal.timeout(DEADLINE);
    response = await fetch(url, { credentials: "same-origin", ...init, signal });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    const late = error instanceof DOMException && error.name === "TimeoutError";
    throw new ApiError("unreachable", late ? "the service did not answer in time" : "the service cannot be reached", 0);
  }
  if (response.status === 401) location.assign(loginUrl());
  const text = await response.text();
  let document = null;
  try { document = JSON.parse(text); } catch { /* The text is what there is to say. */ }
  if (!response.ok) {
    const message = document?.message ?? (text.slice(0, 300) || response.statusText);
    throw new ApiError(String(document?.error ?? response.status), String(message), response.status);
  }
  if (document === null) throw new ApiError("unreadable", "the answer is not that of a scheduler", response.status);
  return document;
}

/** Give an order; copies of one are carried out once. @param {string} id @param {Record<string, any>} order */
export async function give(id, order) {
  const key = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const body = JSON.stringify({ ...order, key });
  try {
    return await send(id, body);
  } catch (error) {
    if (error.status !== 403) throw error;
    // The service has restarted since this page was opened, and draws other tokens.
    const session = await ask(`${BASE}api/session`);
    if (!session.orders || session.csrf === csrf) throw error;
    csrf = session.csrf;
    return send(id, body);
  }
}

let csrf = meta("scheduler-csrf");

/** @param {string} id @param {string} body */
function send(id, body) {
  return ask(apiUrl(id, "orders"), { method: "POST", headers: { "content-type": "application/json", "x-scheduler-csrf": csrf }, body });
}
