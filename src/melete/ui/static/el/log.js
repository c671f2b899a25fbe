// <log-view src="/api/v1/runs/ID/log">: a log as it grows; only the lines that can be seen are in the page.
//
// Follows the end unless one scrolls up; older pages come as one nears the top. The server searches; a hit leads to its
// place. Lines are addressed by their place in bytes. "\r" keeps what was written last, ANSI colours become classes of
// text, everything else of a line is shown as text.

import { ask } from "../ask.js";
import { live } from "../live.js";
import { replaceQuery } from "./address.js";

const PAGE = 1000;
const STEP_BYTES = 48_000;
const MOST_LINES = 120_000;
const SPARE = 20;
const ESCAPE = /\u001b\[([0-9;]*)([A-Za-z])|\u001b\][^\u0007]*(?:\u0007|$)|[\u0000-\u0008\u000b-\u001f\u007f]/g;
const encoder = new TextEncoder();

class LogView extends HTMLElement {
  /** @type {{offset: number, text: string}[]} */
  lines = [];
  /** Place behind the last line that is held. */
  end = 0;
  follows = true;
  /** Whether the lines reach to the end of the log. */
  atEnd = true;

  connectedCallback() {
    this.src = this.getAttribute("src");
    this.box = this.querySelector("[data-part=box]");
    this.room = this.querySelector("[data-part=room]");
    this.rows = this.querySelector("[data-part=rows]");
    this.note = this.querySelector("[data-part=note]");
    this.find = this.querySelector("input[type=search]");
    this.tail = this.querySelector("[data-log=follow]");
    this.box.addEventListener("scroll", () => this.scrolled());
    this.tail.addEventListener("click", () => this.toEnd());
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest("[data-offset]");
      if (this.found && row) this.goTo(Number(row.dataset.offset));
    });
    this.find.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.search(this.find.value), 200);
    });
    this.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.search(this.find.value);
    });
    this.stop = live({ [this.src]: (payload) => this.take(payload) });
    new ResizeObserver(() => this.redraw()).observe(this.box);
    const asked = new URLSearchParams(location.search).get("search");
    if (asked) {
      this.find.value = asked;
      this.search(asked);
    }
  }

  disconnectedCallback() { this.stop?.(); }

  /** @param {any} payload of the topic */
  take(payload) {
    if (payload.error) {
      if (payload.error.code !== "gone") this.tell(payload.error.message);  // the page says it at its head
      return;
    }
    const page = payload.whole ?? payload.more;
    if (!this.atEnd) return;
    if (payload.whole && !(page.end >= this.end && this.lines.length && page.data[0]?.offset <= this.end)) {
      this.lines = page.data;
    } else {
      this.add(page.data.filter((line) => line.offset >= this.end));
    }
    this.end = page.end;
    if (this.lines.length > MOST_LINES) this.lines = this.lines.slice(-MOST_LINES / 2);
    if (!this.found) this.tell("");
    this.redraw();
  }

  /** Adds lines at the end; what continues an unfinished line is put to it. */
  add(more) {
    const last = this.lines.at(-1), first = more[0];
    if (last && first && last.offset + encoder.encode(last.text).length === first.offset) {
      last.text += first.text;
      more = more.slice(1);
    }
    this.lines.push(...more);
  }

  async search(text) {
    replaceQuery({ search: text });
    if (!text) {
      this.found = null;
      this.tell("");
      this.toEnd();
      return;
    }
    const lines = [];
    let cursor = null, looks = 0;
    do {
      const page = await this.ask({ search: text, limit: PAGE, ...(cursor ? { cursor } : {}) });
      if (!page || this.find.value !== text) return;
      lines.unshift(...page.data);
      cursor = page.next_cursor;
      looks += 1;
    } while (cursor && lines.length < PAGE && looks < 16);
    this.found = lines;
    const many = `${lines.length.toLocaleString("en")} ${lines.length === 1 ? "line" : "lines"}`;
    this.tell(lines.length ? `${many}${cursor ? " among the newest" : ""} with “${text}”. Choose one to go to its place.`
      : `No line has “${text}”.`);
    this.redraw();
    this.box.scrollTop = this.box.scrollHeight;
  }

  /** Shows the lines around a place. @param {number} offset */
  async goTo(offset) {
    const from = Math.max(0, offset - 4000);
    const page = await this.ask({ after: from, limit: PAGE });
    if (!page) return;
    this.found = null;
    this.follows = this.atEnd = false;
    this.lines = from ? page.data.slice(1) : page.data;
    this.end = page.end;
    this.marked = offset;
    this.tell("");
    this.redraw();
    const place = this.lines.findIndex((line) => line.offset === offset);
    this.box.scrollTop = Math.max(0, (place - 5) * this.rowHeight());
  }

  /** Back to the end, which is followed from then on. */
  async toEnd() {
    this.found = null;
    this.follows = true;
    if (!this.atEnd) {
      const page = await this.ask({ limit: PAGE });
      if (!page) return;
      this.lines = page.data;
      this.end = page.end;
      this.atEnd = true;
    }
    this.redraw();
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.box;
    if (!this.found) {
      this.follows = this.atEnd && scrollTop + clientHeight > scrollHeight - 30;
      if (scrollTop < 400) this.older();
      else if (!this.atEnd && scrollTop + clientHeight > scrollHeight - 400) this.newer();
    }
    this.redraw();
  }

  /** The page before the first line that is held. */
  async older() {
    const first = this.lines[0]?.offset ?? 0;
    if (this.asking || first === 0) return;
    this.asking = true;
    const from = Math.max(0, first - STEP_BYTES);
    let page, lines = [], after = from;
    do {
      page = await this.ask({ after, limit: PAGE });
      lines = [...lines, ...(page?.data ?? [])];
      after = page?.end ?? first;
    } while (page?.data.length && after < first);
    lines = lines.filter((line) => line.offset < first && (from === 0 || line.offset > from));
    this.asking = false;
    if (!lines.length || this.lines[0]?.offset !== first) return;
    const height = this.rowHeight() * lines.length;
    this.lines = [...lines, ...this.lines];
    this.draw();
    this.box.scrollTop += height;
  }

  async newer() {
    if (this.asking) return;
    this.asking = true;
    const page = await this.ask({ after: this.end, limit: PAGE });
    this.asking = false;
    if (!page || this.atEnd) return;
    if (page.data.length) this.add(page.data);
    this.end = page.end;
    this.atEnd = page.data.length < PAGE / 2;
    this.redraw();
  }

  async ask(query) {
    try {
      return await ask(`${this.src}${this.src.includes("?") ? "&" : "?"}${new URLSearchParams(query)}`);
    } catch (error) {
      this.tell(error.message);
      return null;
    }
  }

  rowHeight() {
    this.height ||= this.rows.firstElementChild?.getBoundingClientRect().height || 20;
    return this.height;
  }

  redraw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    const lines = this.found ?? this.lines, height = this.rowHeight();
    this.room.style.height = `${lines.length * height}px`;
    if (this.follows && !this.found) this.box.scrollTop = this.box.scrollHeight;
    const first = Math.max(0, Math.floor(this.box.scrollTop / height) - SPARE);
    const count = Math.ceil(this.box.clientHeight / height) + 2 * SPARE;
    this.rows.style.transform = `translateY(${first * height}px)`;
    this.place(lines.slice(first, first + count));
    this.tail.setAttribute("aria-pressed", String(this.follows && !this.found));
  }

  /** Puts rows of these lines in the page; one that is there already stays, with what is selected or pressed in it. */
  place(lines) {
    const old = new Map([...this.rows.children].map((row) => [`${row.dataset.offset} ${row.text}`, row]));
    const rows = lines.map((line) => old.get(`${line.offset} ${line.text}`) ?? this.row(line));
    const kept = new Set(rows);
    for (const row of old.values()) if (!kept.has(row)) row.remove();
    rows.forEach((row, at) => {
      row.classList.toggle("marked", Number(row.dataset.offset) === this.marked);
      if (this.rows.children[at] !== row) this.rows.insertBefore(row, this.rows.children[at] ?? null);
    });
  }

  row(line) {
    const row = document.createElement("div");
    row.className = "line";
    row.dataset.offset = String(line.offset);
    row.text = line.text;
    row.append(...pieces(settled(line.text)));
    return row;
  }

  tell(text) {
    this.note.textContent = text;
    this.note.hidden = !text;
  }
}

/** What a terminal would show of a line with progress in it: what was written after the last return. @param {string} text */
function settled(text) {
  if (!text.includes("\r")) return text;
  return text.split("\r").filter((part) => part.trim()).at(-1) ?? "";
}

/** A line as text and spans with the classes of its colours. @param {string} text @returns {(string | HTMLElement)[]} */
function pieces(text) {
  const made = [];
  let classes = [], from = 0;
  const put = (part) => {
    if (!part) return;
    if (!classes.length) return made.push(part);
    const span = document.createElement("span");
    span.className = classes.join(" ");
    span.textContent = part;
    made.push(span);
  };
  for (const found of text.matchAll(ESCAPE)) {
    put(text.slice(from, found.index));
    from = found.index + found[0].length;
    if (found[2] !== "m") continue;
    for (const code of (found[1] || "0").split(";").map(Number)) {
      if (code === 0) classes = [];
      else if (code === 1 || code === 2) classes = [...classes, code === 1 ? "ansi-bold" : "ansi-dim"];
      else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) {
        classes = [...classes.filter((name) => !/^ansi-\d/.test(name)), `ansi-${code % 10}`];
      } else if (code === 39) classes = classes.filter((name) => !/^ansi-\d/.test(name));
    }
  }
  put(text.slice(from));
  return made.length ? made : ["\u00a0"];
}

customElements.define("log-view", LogView);
