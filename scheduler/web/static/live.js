// A stream of events that is opened again after every loss, at growing pauses, and says how it stands.
import { ask } from "./api.js";
import { clock } from "./format.js";

const FIRST = 0.5, MOST = 15; // s
const SILENCE = 45; // s without a word, after which a connection is taken for lost
const REST = 10; // s out of sight, after which the stream is closed: a browser has six connections for all of its tabs
const PEEK = 60; // s between two looks of a tab that is out of sight: its title tells how far a build is

/** Pause before the next try, s: doubled each time, up to a bound, and spread so that not all viewers come at once. @param {number} failed @param {number} random 0 to 1 */
export function backoff(failed, random) { return Math.min(MOST, FIRST * 2 ** failed) * (0.5 + 0.5 * random); }

/** @typedef {{snapshot: (data: any) => void, update: (data: any) => void, end?: (reason: string) => void}} Handlers */

export class Live {
  /**
   * @param {string} url of the stream @param {Handlers} handlers
   * @param {(lost: string) => void} tell gets a sentence while the connection is lost, else nothing
   * @param {string} probe address that says why a stream cannot be had
   */
  constructor(url, handlers, tell, probe) {
    this.url = url;
    this.handlers = handlers;
    this.tell = tell;
    this.probe = probe;
    this.failed = 0;
    this.heard = 0; // time of the last word, ms since 1970
    this.closed = false;
    this.timer = 0;
    this.watch = setInterval(() => this.checkSilence(), 5_000);
    this.onLine = () => { this.failed = 0; this.open(); };
    window.addEventListener("online", this.onLine);
    this.onSight = () => this.sight();
    document.addEventListener("visibilitychange", this.onSight);
    this.nap = 0;
    this.open();
  }

  /** The tab was hidden, or is seen again. */
  sight() {
    clearTimeout(this.nap);
    if (this.closed) return;
    if (document.hidden) this.nap = setTimeout(() => this.rest(), REST * 1000);
    else if (!this.source) this.onLine();
  }

  /** Keep no stream for now; look again after a while. */
  rest() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = undefined;
    this.nap = setTimeout(() => this.open(), PEEK * 1000);
  }

  open() {
    clearTimeout(this.timer);
    this.source?.close();
    if (this.closed) return;
    const source = this.source = new EventSource(this.url), peeks = document.hidden;
    clearTimeout(this.nap);
    if (peeks) this.nap = setTimeout(() => this.rest(), REST * 1000);
    this.opened = Date.now();
    /** @param {string} name @param {(data: any) => void} action */
    const on = (name, action) => source.addEventListener(name, (event) => {
      if (source !== this.source) return;
      this.heard = Date.now();
      this.failed = 0;
      this.tell("");
      action(JSON.parse(/** @type {MessageEvent} */ (event).data || "{}"));
    });
    on("snapshot", (data) => {
      this.handlers.snapshot(data);
      if (peeks && document.hidden) {
        clearTimeout(this.nap);
        this.rest();
      }
    });
    on("update", this.handlers.update);
    on("ping", () => {});
    on("end", (data) => this.ended(data));
    source.addEventListener("error", () => { if (source === this.source) this.lost(); });
  }

  /** @param {{reason: string, message?: string}} end */
  ended({ reason, message }) {
    this.source?.close();
    if (reason === "finished" || reason === "gone") this.close();
    else if (reason === "moved") this.open();
    else this.lost(reason === "stopping" ? "The service is stopping" : message || "The stream has ended");
    this.handlers.end?.(reason);
  }

  lost(why = "Connection lost") {
    this.source?.close();
    this.source = undefined;
    if (this.closed) return;
    const pause = backoff(this.failed++, Math.random());
    const asOf = this.heard ? `; what is shown is of ${clock(this.heard / 1000, Date.now() / 1000)}` : "";
    this.tell(`${why}${asOf}. Connecting again …`);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.retry(), pause * 1000);
  }

  /** A browser does not say why a stream was refused; a question does, and leads to the login where that is why. */
  async retry() {
    try {
      await ask(this.probe);
    } catch (error) {
      if (error.status !== 404) {
        this.lost(error.status ? `Refused: ${error.message}` : undefined);
        return;
      }
    }
    this.open();
  }

  /** A connection may be dead without either end knowing: open another one, which a living service costs a snapshot. */
  checkSilence() {
    const since = Math.max(this.heard, this.opened ?? 0);
    if (this.source && Date.now() - since > SILENCE * 1000) this.retry();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    clearInterval(this.watch);
    clearTimeout(this.nap);
    document.removeEventListener("visibilitychange", this.onSight);
    window.removeEventListener("online", this.onLine);
    this.source?.close();
  }
}
