// <melete-chart>: figures of one or several runs over their steps, live, drawn with uPlot.
//
//   <melete-chart runs="ID,ID" keys="loss,val_loss" label="loss" about='{"ID": {"name": "base", "begun_s": 1.8e9}}'>
//
// A run has a colour and a dash pattern, a second figure of one chart too, so that colour is never all that tells them
// apart. Draws at most once a frame and only while it can be seen; appends points without building its columns again.
// The server thins what it sends (lowest and highest stay); a zoom asks it for the finer range. Values that are not
// finite have no point: they are counted in the heading.

import uPlot from "../vendor/uplot.js";
import { live } from "../live.js";
import { Columns, short, span } from "./columns.js";
import { view } from "./view.js";

const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [4, 2], [12, 4], [1, 4], [6, 2, 1, 2, 1, 2]];
const FADED = 0.28;
const NEAR_PX = 200;
/** Points from which a line is a hair, which software draws several times as fast. */
const MANY = 1000;
/** Steps of a time axis, in seconds. */
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000, 864000];

/** @param {string} html @returns {HTMLTemplateElement} */
function template(html) {
  const made = document.createElement("template");
  made.innerHTML = html;
  return made;
}

const PARTS = template(`
  <header>
    <h3 data-part="label"></h3><span class="fine" data-part="at"></span><span class="fine notes" data-part="notes"></span>
    <span class="chart-tools">
      <button type="button" class="quiet small" data-chart="pin" hidden>Pin</button>
      <button type="button" class="quiet small" data-chart="hide" hidden>Hide</button>
      <button type="button" class="quiet small" data-chart="csv">CSV</button>
      <button type="button" class="quiet small" data-chart="png">PNG</button>
    </span>
  </header>
  <div class="plot" data-part="plot" tabindex="0" role="application"></div>
  <div class="legend" data-part="legend"></div>
  <p class="unseen" data-part="said"></p>
  <p class="unseen" data-part="spoken" aria-live="polite"></p>`);
const LEGEND = template(`<button type="button" aria-pressed="true">
  <svg width="26" height="8" aria-hidden="true"><line x1="1" y1="4" x2="25" y2="4" stroke-width="2"/></svg>
  <span data-part="name"></span> <b data-part="value"></b></button>`);

class MeleteChart extends HTMLElement {
  /** @type {import("./columns.js").Curve[]} */
  curves = [];
  /** @type {import("./columns.js").Curve[] | null} curves of the zoomed range, finer than the whole */
  detail = null;
  /** @type {Columns | null} */
  columns = null;
  /** @type {uPlot | null} */
  plot = null;
  hiddenCurves = new Set();

  connectedCallback() {
    this.runs = (this.getAttribute("runs") ?? "").split(",").filter(Boolean);
    this.keys = (this.getAttribute("keys") ?? "").split(",").filter(Boolean);
    this.most = Number(this.getAttribute("points") ?? 2000);
    this.about = JSON.parse(this.getAttribute("about") ?? "{}");
    if (!this.body) this.build();
    this.seen = new IntersectionObserver(([entry]) => (entry.isIntersecting ? this.mount() : this.unmount()),
      { rootMargin: `${NEAR_PX}px` });
    this.seen.observe(this);
  }

  disconnectedCallback() {
    this.seen?.disconnect();
    this.unmount();
  }

  /** Heading, plot and legend; filled while the chart can be seen. */
  build() {
    const label = this.getAttribute("label") ?? this.keys.join(", ");
    this.setAttribute("role", "group");
    this.setAttribute("aria-label", `Chart of ${label}`);
    this.append(PARTS.content.cloneNode(true));
    this.body = this.querySelector("[data-part=plot]");
    this.said = this.querySelector("[data-part=said]");
    this.spoken = this.querySelector("[data-part=spoken]");
    this.legend = this.querySelector("[data-part=legend]");
    this.notes = this.querySelector("[data-part=notes]");
    this.querySelector("[data-part=label]").textContent = label;
    for (const button of this.querySelectorAll("[hidden]")) button.hidden = !this.closest("curve-board");
    this.said.id = `said-${crypto.randomUUID()}`;
    this.body.setAttribute("aria-describedby", this.said.id);
    this.body.setAttribute("aria-label", `${label}: arrow keys move the cursor, plus and minus zoom, 0 shows all`);
    this.body.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("pointerdown", (event) => this.pan(event), { capture: true });
    this.addEventListener("click", (event) => {
      const action = event.target.closest?.("[data-chart]")?.dataset.chart;
      if (action === "csv") this.saveCsv();
      else if (action === "png") this.savePng();
      else if (action) this.dispatchEvent(new CustomEvent("chart", { bubbles: true, detail: action }));
    });
  }

  mount() {
    if (this.stop) return;
    this.changed = (event) => this.look(event.detail);
    this.restyled = () => this.redraw(true);
    view.addEventListener("change", this.changed);
    document.documentElement.addEventListener("theme", this.restyled);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", this.restyled);
    this.sized = new ResizeObserver(() => {
      if (this.plot && this.body.clientWidth) this.plot.setSize({ width: this.body.clientWidth, height: this.height() });
    });
    this.sized.observe(this.body);
    this.subscribe();
    if (view.from !== null) this.ask();
  }

  unmount() {
    this.stop?.();
    this.stop = null;
    view.removeEventListener("change", this.changed);
    document.documentElement.removeEventListener("theme", this.restyled);
    this.dark?.removeEventListener("change", this.restyled);
    this.sized?.disconnect();
    this.asking?.abort();
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.plot?.destroy();
    this.plot = null;
  }

  subscribe() {
    this.curves = [];
    this.columns = null;
    const query = `keys=${this.keys.map(encodeURIComponent).join(",")}&max=${this.most}`;
    this.stop = live(Object.fromEntries(this.runs.map((run) =>
      [`/api/v1/runs/${run}/metrics?${query}`, (payload) => this.take(run, payload)])));
  }

  /** @param {string} run @param {any} payload of its topic */
  take(run, payload) {
    if (payload.error) {
      this.problem = payload.error.code === "gone" ? null : payload.error.message;
      this.redraw();
      return;
    }
    this.problem = null;
    if (payload.whole) {
      // A file that is being deleted or written anew has no figures for a moment: what was drawn stays.
      if (!payload.whole.figures.length) return;
      this.curves = this.curves.filter((curve) => curve.run !== run);
      this.curves.push(...payload.whole.figures.map((figure) => this.curve(run, figure)));
      this.order();
      this.columns = this.detail ? this.columns : null;
    } else {
      for (const figure of payload.more.figures) this.extend(run, figure);
      if (this.curves.some((curve) => curve.values.length > 2 * this.most + 1000)) {
        this.stop();
        this.subscribe();
      }
    }
    this.redraw();
  }

  /** @returns {import("./columns.js").Curve} */
  curve(run, figure) {
    const { key, steps, times_s, values, not_finite, gaps } = figure;
    return { run, key, steps, times_s, values, not_finite, gaps, place: this.runs.indexOf(run) };
  }

  order() {
    this.curves.sort((a, b) => a.place - b.place || this.keys.indexOf(a.key) - this.keys.indexOf(b.key));
  }

  /** New points of a figure: at the end of its curve, and into what is drawn. */
  extend(run, figure) {
    const curve = this.curves.find((one) => one.run === run && one.key === figure.key);
    if (!curve) {
      this.curves.push(this.curve(run, figure));
      this.order();
      this.columns = null;
      return;
    }
    curve.broken ||= figure.not_finite > curve.not_finite;
    curve.not_finite = figure.not_finite;
    if (curve.broken && figure.steps.length) {
      curve.gaps.push((curve.steps.at(-1) + figure.steps[0]) / 2);
      curve.broken = false;
      this.columns = null;
    }
    const drawn = this.detail ? this.detail.find((one) => one.run === run && one.key === figure.key) : null;
    for (let at = 0; at < figure.values.length; at++) {
      for (const target of drawn ? [curve, drawn] : [curve]) {
        target.steps.push(figure.steps[at]);
        target.times_s.push(figure.times_s[at]);
        target.values.push(figure.values[at]);
        const index = this.columns?.curves.indexOf(target) ?? -1;
        if (index >= 0) this.columns.append(index);
      }
    }
  }

  /** The view has changed. @param {string[]} what */
  look(what) {
    this.columns = null;
    if (what.includes("from") || what.includes("to")) {
      this.detail = null;
      this.ask();
    }
    this.redraw(what.some((name) => name !== "from" && name !== "to" && name !== "smooth")
      || (what.includes("smooth") && this.smoothed !== view.smooth > 0));
  }

  /** Asks the server for all points of the range that is shown. */
  ask() {
    this.asking?.abort();
    clearTimeout(this.timer);
    if (view.from === null || !this.curves.length) {
      if (view.from !== null) this.timer = setTimeout(() => this.isConnected && this.ask(), 300);
      return;
    }
    this.timer = setTimeout(async () => {
      this.asking = new AbortController();
      try {
        const found = await Promise.all(this.runs.map((run) => this.fetchRange(run, this.asking.signal)));
        this.detail = found.flat();
        this.columns = null;
        this.redraw();
      } catch (error) {
        if (error.name !== "AbortError") this.detail = null;  // the whole, thinned, stays
      }
    }, 150);
  }

  async fetchRange(run, signal) {
    const own = this.curves.filter((curve) => curve.run === run);
    const range = this.stepsShown(own);
    if (!range) return [];
    const url = `/api/v1/runs/${run}/metrics?keys=${own.map((curve) => encodeURIComponent(curve.key)).join(",")}`
      + `&from=${range[0]}&to=${range[1]}&max=${this.most}`;
    const answer = await fetch(url, { signal });
    if (!answer.ok) return own;
    return (await answer.json()).figures.map((figure) => this.curve(run, figure));
  }

  /** Steps around the shown range, whatever the x axis is. */
  stepsShown(curves) {
    const probe = new Columns([], view, (curve) => this.begun(curve));
    let low = Infinity, high = -Infinity;
    for (const curve of curves) {
      for (let at = 0; at < curve.steps.length; at++) {
        const x = probe.x(curve, at);
        if (x <= view.from || low === Infinity) low = Math.min(low, curve.steps[at]);
        if (x <= view.from) low = Math.max(low, curve.steps[at]);
        high = curve.steps[at];
        if (x >= view.to) break;
      }
    }
    return low === Infinity ? null : [low, Math.max(low, high)];
  }

  begun(curve) {
    return this.about[curve.run]?.begun_s
      ?? Math.min(...this.curves.filter((one) => one.run === curve.run).map((one) => one.times_s[0] ?? Infinity));
  }

  name(run) { return this.about[run]?.name ?? run; }

  height() { return this.hasAttribute("tall") ? 340 : 190; }

  /** Draws in the next frame. @param {boolean} [anew] with new axes and series */
  redraw(anew = false) {
    this.anew ||= anew;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    const shown = this.detail ?? this.curves;
    this.classList.toggle("waiting", !shown.length && !this.problem);
    if (!this.columns) {
      this.columns = new Columns(shown, view, (curve) => this.begun(curve));
      this.anew ||= !this.plot || this.plot.series.length !== this.seriesCount() + 1 || this.drawn !== this.identity();
    }
    if (this.anew) this.draft();
    else this.plot?.setData(this.columns.data);
    this.tell();
  }

  identity() { return this.columns.curves.map((curve) => `${curve.run} ${curve.key}`).join(); }
  seriesCount() { return 2 * this.columns.curves.length; }

  /** A new plot: the old one's axes or series no longer fit. */
  draft() {
    this.anew = false;
    this.plot?.destroy();
    this.plot = null;
    this.smoothed = view.smooth > 0;
    this.drawn = this.identity();
    const { curves } = this.columns;
    if (!curves.length || !this.body.clientWidth) return;
    const style = getComputedStyle(this);
    const token = (name) => style.getPropertyValue(name).trim();
    const ink = token("--axis-ink"), line = token("--axis-line");
    const fine = this.columns.data[0].length > MANY;
    const series = (average) => curves.map((curve, index) => {
      const { colour, dash } = this.look_of(curve, token);
      return {
        label: curve.key, scale: "y", stroke: colour, dash, width: average ? 1.8 : fine ? 1 : 1.6,
        show: !this.hiddenCurves.has(`${curve.run} ${curve.key}`) && (!average || this.smoothed),
        alpha: !average && this.smoothed ? FADED : 1,
        points: { show: average || this.smoothed ? false : undefined, size: 5, fill: colour },
      };
    });
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 },
      font: "11px system-ui, sans-serif" };
    this.plot = new uPlot({
      width: this.body.clientWidth, height: this.height(), padding: [8, 10, 0, 0], legend: { show: false },
      series: [{}, ...series(false), ...series(true)],
      scales: {
        x: { time: view.x === "time", range: (_, low, high) => (view.from !== null ? [view.from, view.to] : low === high ? [low - 1, high + 1] : [low, high]) },
        y: view.log ? { distr: 3 } : {},
      },
      axes: [
        { ...axis, size: 30, space: 64, ...(view.x === "relative" ? { values: (_, at) => at.map(span), incrs: SECONDS }
          : view.x === "step" ? { values: (_, at) => at.map(short) } : {}) },
        { ...axis, size: 56, space: 34, values: (_, at) => at.map((value) => (value === null ? "" : short(value))) },
      ],
      cursor: {
        drag: { x: true, y: false, setScale: false, dist: 4 },
        focus: { prox: -1 },
        sync: { key: "melete", setSeries: false, scales: ["x", null],
          filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
        hover: { skip: [null, undefined] },
        bind: { dblclick: () => () => { view.set({ from: null, to: null }); return null; },
          mousedown: (_, __, handler) => (event) => (event.shiftKey ? null : handler(event)) },
        points: { size: 7 },
      },
      hooks: {
        setCursor: [() => this.values()],
        setSelect: [(plot) => {
          if (plot.select.width < 4) return;
          const from = plot.posToVal(plot.select.left, "x");
          const to = plot.posToVal(plot.select.left + plot.select.width, "x");
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          view.set({ from, to });
        }],
      },
    }, this.columns.data, this.body);
    this.list(token);
  }

  /** Colour of the run and dash of the figure; with one run the figures have colours too. */
  look_of(curve, token) {
    const figure = this.keys.indexOf(curve.key);
    const colour = this.runs.length > 1 ? curve.place : figure;
    const dash = this.runs.length > 1 ? curve.place + figure * 3 : figure;
    return { colour: token(`--series-${(colour % 8) + 1}`), dash: DASHES[dash % DASHES.length] };
  }

  /** The legend: a line of each curve's looks, its name and its value; a click hides it. */
  list(token) {
    const several = this.keys.length > 1;
    this.legend.replaceChildren(...this.columns.curves.map((curve, index) => {
      const item = LEGEND.content.cloneNode(true);
      const button = item.querySelector("button");
      const { colour, dash } = this.look_of(curve, token);
      const line = item.querySelector("line");
      line.setAttribute("stroke", colour);
      line.setAttribute("stroke-dasharray", dash.join(" "));
      const parts = [this.runs.length > 1 ? this.name(curve.run) : "", several ? curve.key : ""];
      item.querySelector("[data-part=name]").textContent = parts.filter(Boolean).join(" · ") || curve.key;
      const id = `${curve.run} ${curve.key}`;
      button.setAttribute("aria-pressed", String(!this.hiddenCurves.has(id)));
      button.addEventListener("click", () => {
        if (!this.hiddenCurves.delete(id)) this.hiddenCurves.add(id);
        this.redraw(true);
      });
      return item;
    }));
    this.outputs = [...this.legend.querySelectorAll("[data-part=value]")];
    this.values();
  }

  /** Writes the values under the cursor, or the last ones, into the legend. */
  values() {
    if (!this.columns) return;
    const at = this.plot?.cursor.idxs;
    const hovering = this.hovering();
    const count = this.columns.curves.length;
    this.outputs?.forEach((output, index) => {
      const column = this.columns.data[1 + index + (this.smoothed ? count : 0)];
      const place = hovering ? at?.[1 + index] : null;
      const text = short(column?.[place ?? last(column)]);
      if (output.textContent !== text) output.textContent = text;
    });
    const x = hovering ? this.columns.data[0][this.plot.cursor.idx] : null;
    const where = x === null || x === undefined ? "" : this.where(x);
    const shownAt = this.querySelector("[data-part=at]");
    if (shownAt.textContent !== where) shownAt.textContent = where;
  }

  where(x) {
    if (view.x === "step") return `step ${Math.round(x).toLocaleString("en")}`;
    return view.x === "relative" ? span(x) : new Date(x * 1000).toLocaleString();
  }

  /** Says in words what is drawn, at most every two seconds, and what has no point. */
  tell() {
    if (!this.hovering()) this.values();
    if (performance.now() - (this.toldAt ?? -Infinity) < 2000 && !this.problem) return;
    this.toldAt = performance.now();
    const lost = this.curves.reduce((sum, curve) => sum + curve.not_finite, 0);
    const notes = [
      this.problem,
      lost ? `${lost} ${lost === 1 ? "value is" : "values are"} not finite` : "",
      this.columns.notPositive ? `${this.columns.notPositive} at or below 0 not drawn` : "",
    ].filter(Boolean).join(" · ");
    if (this.notes.textContent !== notes) this.notes.textContent = notes;
    this.said.textContent = this.curves.map((curve) => {
      const low = curve.values.reduce((a, b) => Math.min(a, b), Infinity);
      const high = curve.values.reduce((a, b) => Math.max(a, b), -Infinity);
      return `${curve.key} of ${this.name(curve.run)}: step ${curve.steps[0]} to ${curve.steps.at(-1)}, first `
        + `${short(curve.values[0])}, lowest ${short(low)}, highest ${short(high)}, last ${short(curve.values.at(-1))}.`;
    }).join(" ") || "No values yet.";
  }

  hovering() { return Boolean(this.plot && this.plot.cursor.left >= 0); }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (!this.plot) return;
    const axis = this.columns.data[0];
    const { min, max } = this.plot.scales.x;
    const [left, right] = this.plot.series[0].idxs;
    const far = event.shiftKey ? 10 : 1;
    const now = this.hovering() ? this.plot.cursor.idx : right;
    const moves = { ArrowLeft: now - far, ArrowRight: now + far, Home: left, End: right };
    const half = (max - min) / 4, middle = this.hovering() ? axis[now] : (min + max) / 2;
    if (event.key in moves) {
      const place = Math.min(right, Math.max(left, moves[event.key]));
      this.plot.setCursor({ left: this.plot.valToPos(axis[place], "x"), top: 8 });
      this.spoken.textContent = `${this.where(axis[place])}: ${[...this.legend.querySelectorAll("button")]
        .map((button) => button.textContent.trim().replace(/\s+/g, " ")).join(", ")}`;
    } else if (event.key === "+" || event.key === "=") view.set({ from: middle - half, to: middle + half });
    else if (event.key === "-" && view.from !== null) view.set({ from: min - 2 * half, to: max + 2 * half });
    else if (event.key === "0") view.set({ from: null, to: null });
    else if (event.key === "Escape") this.plot.setCursor({ left: -10, top: -10 });
    else return;
    event.preventDefault();
  }

  /** Shift and drag moves the shown range. @param {PointerEvent} event */
  pan(event) {
    if (!event.shiftKey || !this.plot) return;
    event.preventDefault();
    const { min, max } = this.plot.scales.x;
    const unit = (max - min) / this.plot.over.clientWidth;
    const move = (to) => {
      const by = (event.clientX - to.clientX) * unit;
      view.set({ from: min + by, to: max + by });
    };
    const done = () => document.removeEventListener("pointermove", move);
    document.addEventListener("pointermove", move);
    document.addEventListener("pointerup", done, { once: true });
  }

  saveCsv() {
    const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const rows = ["run,figure,step,time_s,value"];
    for (const curve of this.detail ?? this.curves) {
      curve.values.forEach((value, at) =>
        rows.push([curve.run, cell(curve.key), curve.steps[at], curve.times_s[at] ?? "", value].join(",")));
    }
    this.save(new Blob([rows.join("\n") + "\n"], { type: "text/csv" }), "csv");
  }

  savePng() {
    const from = this.plot?.ctx.canvas;
    if (!from) return;
    const picture = document.createElement("canvas");
    const unit = devicePixelRatio, head = 26 * unit;
    [picture.width, picture.height] = [from.width, from.height + head];
    const pen = picture.getContext("2d"), style = getComputedStyle(this);
    pen.fillStyle = style.backgroundColor;
    pen.fillRect(0, 0, picture.width, picture.height);
    pen.fillStyle = style.color;
    pen.font = `${13 * unit}px system-ui, sans-serif`;
    pen.fillText(`${this.getAttribute("label") ?? this.keys.join(", ")} · ${this.runs.map((run) => this.name(run)).join(", ")}`,
      10 * unit, 18 * unit);
    pen.drawImage(from, 0, head);
    picture.toBlob((blob) => this.save(blob, "png"));
  }

  save(blob, kind) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${this.keys.join("-").replace(/[^\w-]+/g, "_")}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}

/** Place of the last value of a column. @param {any[] | undefined} column */
function last(column) {
  let place = (column?.length ?? 0) - 1;
  while (place > 0 && (column[place] === undefined || column[place] === null)) place -= 1;
  return place;
}

customElements.define("melete-chart", MeleteChart);
