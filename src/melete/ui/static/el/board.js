// <curve-board>: all figures of one or several runs as charts in groups, found as they come; filtered, pinned, hidden.
//
//   <curve-board runs="ID,ID" about='{…}'> with a <form> of the controls inside </curve-board>
//
// The part of a figure's name before its first "/" is its group. What is pinned or hidden is remembered in the browser;
// the filter is a regular expression and stands in the URL. `points=5000` in the URL asks for more points of each curve.

import { live } from "../live.js";
import { replaceQuery } from "./address.js";
import "./chart.js";
import { view } from "./view.js";

const MOST_CHARTS = 400;
const asked = new URLSearchParams(location.search);

class CurveBoard extends HTMLElement {
  /** @type {Map<string, HTMLElement>} chart of each figure */
  charts = new Map();
  /** @type {Map<string, Set<string>>} figures of each run */
  known = new Map();
  pinned = kept("melete.pinned");
  hiddenKeys = kept("melete.hidden");

  connectedCallback() {
    this.runs = (this.getAttribute("runs") ?? "").split(",").filter(Boolean);
    this.form = this.querySelector("form");
    this.groups ??= this.appendChild(document.createElement("div"));
    this.groups.className = "stack";
    this.controls();
    this.stop = live(Object.fromEntries(this.runs.map((run) =>
      [`/api/v1/runs/${run}/metrics`, (curves) => this.take(run, curves)])));
    this.addEventListener("chart", (event) => this.act(event.target, event.detail));
  }

  disconnectedCallback() { this.stop?.(); }

  controls() {
    const { smooth, y, x, match, whole, unhide } = this.form.elements;
    const show = () => {
      smooth.value = String(view.smooth);
      this.form.querySelector("[data-part=smoothed]").textContent = view.smooth ? view.smooth.toFixed(2) : "off";
      y.checked = view.log;
      x.value = view.x;
      whole.hidden = view.from === null;
    };
    show();
    view.addEventListener("change", show);
    smooth.addEventListener("input", () => view.set({ smooth: Number(smooth.value) }));
    y.addEventListener("change", () => view.set({ log: y.checked }));
    x.addEventListener("change", () => view.set({ x: x.value }));
    whole.addEventListener("click", () => view.set({ from: null, to: null }));
    unhide.addEventListener("click", () => {
      this.hiddenKeys.clear();
      this.keep();
    });
    match.value = asked.get("match") ?? "";
    match.addEventListener("input", () => {
      replaceQuery({ match: match.value });
      this.arrange();
    });
    this.form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** Which figures a run has by now. @param {string} run @param {any} curves */
  take(run, curves) {
    if (curves.error) {
      // A page that shows one run says at its head that the run is gone.
      if (curves.error.code !== "gone" || this.runs.length > 1) this.tell(curves.error.message);
      return;
    }
    const had = this.known.get(run);
    if (had && curves.figures.every((figure) => had.has(figure.key))) return;
    this.known.set(run, new Set(curves.figures.map((figure) => figure.key)));
    this.arrange();
  }

  /** Charts in their groups, in the order of their names; those that are there already stay what they are. */
  arrange() {
    const wanted = this.pattern();
    const first = (this.getAttribute("first") ?? "").split(",");
    const place = (key) => (first.includes(key) ? first.indexOf(key) : first.length);
    const keys = [...new Set([...this.known.values()].flatMap((set) => [...set]))]
      .sort((a, b) => place(a) - place(b)).slice(0, MOST_CHARTS);
    const shown = keys.filter((key) => !this.hiddenKeys.has(key) && wanted(key));
    const groups = new Map();
    for (const key of shown) {
      const name = this.pinned.has(key) ? "Pinned" : key.includes("/") ? key.split("/")[0] : "Figures";
      groups.set(name, [...(groups.get(name) ?? []), key]);
    }
    const order = [...groups.keys()].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
    const sections = order.map((name) => this.section(name, groups.get(name)));
    for (const [key, chart] of this.charts) {
      if (!shown.includes(key)) {
        chart.remove();
        this.charts.delete(key);
      }
    }
    sections.forEach((section, place) => {
      if (this.groups.children[place] !== section) this.groups.insertBefore(section, this.groups.children[place] ?? null);
    });
    while (this.groups.children.length > sections.length) this.groups.lastElementChild.remove();
    this.form.elements.unhide.hidden = !keys.some((key) => this.hiddenKeys.has(key));
    this.tell(shown.length ? "" : keys.length
      ? "No figure matches the filter." : "No figures yet. They appear here with the first step that is logged.");
  }

  /** @returns {(key: string) => boolean} */
  pattern() {
    const { match } = this.form.elements;
    try {
      const pattern = new RegExp(match.value, "i");
      match.removeAttribute("aria-invalid");
      return (key) => pattern.test(key);
    } catch {
      match.setAttribute("aria-invalid", "true");
      return (key) => key.includes(match.value);
    }
  }

  section(name, keys) {
    let section = [...this.groups.children].find((one) => one.dataset.group === name);
    if (!section) {
      section = document.createElement("section");
      section.dataset.group = name;
      const heading = section.appendChild(document.createElement("h2"));
      heading.textContent = name;
      section.appendChild(document.createElement("div")).className = "charts";
    }
    const place = section.lastElementChild;
    keys.forEach((key, at) => {
      const chart = this.chart(key);
      if (place.children[at] !== chart) place.insertBefore(chart, place.children[at] ?? null);
    });
    return section;
  }

  chart(key) {
    let chart = this.charts.get(key);
    if (!chart) {
      chart = document.createElement("melete-chart");
      chart.setAttribute("runs", this.runs.join(","));
      chart.setAttribute("keys", key);
      chart.setAttribute("points", asked.get("points") ?? "2000");
      chart.setAttribute("about", this.getAttribute("about") ?? "{}");
      chart.className = "card";
      this.charts.set(key, chart);
    }
    chart.toggleAttribute("pinned", this.pinned.has(key));
    return chart;
  }

  act(chart, action) {
    const key = chart.getAttribute("keys");
    if (action === "hide") this.hiddenKeys.add(key);
    else if (!this.pinned.delete(key)) this.pinned.add(key);
    this.keep();
  }

  keep() {
    localStorage.setItem("melete.pinned", JSON.stringify([...this.pinned]));
    localStorage.setItem("melete.hidden", JSON.stringify([...this.hiddenKeys]));
    this.arrange();
  }

  tell(text) {
    const note = this.querySelector("[data-part=board-note]");
    note.textContent = text;
    note.hidden = !text;
  }
}

/** @param {string} name @returns {Set<string>} */
function kept(name) { return new Set(JSON.parse(localStorage.getItem(name) ?? "[]")); }

/** @param {string} name of a group */
function rank(name) { return { Pinned: 0, Figures: 1 }[name] ?? 2; }

customElements.define("curve-board", CurveBoard);
