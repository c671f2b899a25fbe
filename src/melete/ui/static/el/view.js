// How all charts of a page are looked at: smoothing, axes, range. Kept in the URL, so that a link shows the same, and
// remembered in the browser, except for the range. Every chart listens to it; nothing here draws.

import { replaceQuery } from "./address.js";

const KEPT = "melete.curves";
const remembered = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
const asked = new URLSearchParams(location.search);

/** @param {string} name @param {any} fallback */
const start = (name, fallback) => asked.get(name) ?? remembered[name] ?? fallback;
/** @param {string | null} text */
const numeral = (text) => (text !== null && text !== "" && Number.isFinite(Number(text)) ? Number(text) : null);

class View extends EventTarget {
  /** Weight of the past in the moving average, 0 to 0.999. */
  smooth = Math.min(0.999, Math.max(0, Number(start("smooth", 0)) || 0));
  log = start("y", "linear") === "log";
  /** @type {"step" | "time" | "relative"} */
  x = ["step", "time", "relative"].includes(start("x", "step")) ? start("x", "step") : "step";
  /** Shown range of the x axis, null is all of it. */
  from = numeral(asked.get("from"));
  to = numeral(asked.get("to"));

  /**
   * Changes some of it; another x axis forgets the range.
   * @param {{smooth?: number, log?: boolean, x?: string, from?: number | null, to?: number | null}} changed
   */
  set(changed) {
    if (changed.x && changed.x !== this.x) Object.assign(changed, { from: null, to: null });
    Object.assign(this, changed);
    this.dispatchEvent(new CustomEvent("change", { detail: Object.keys(changed) }));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.keep(), 250);
  }

  keep() {
    const y = this.log ? "log" : "linear";
    localStorage.setItem(KEPT, JSON.stringify({ smooth: this.smooth, y, x: this.x }));
    replaceQuery({
      smooth: this.smooth || null, y: this.log ? "log" : null, x: this.x === "step" ? null : this.x,
      from: this.from === null ? null : Number(this.from.toFixed(3)), to: this.to === null ? null : Number(this.to.toFixed(3)),
    });
  }
}

/** The view that all charts of this page share. */
export const view = new View();
