// <yaml-editor><textarea></textarea></yaml-editor>: line numbers, colours, indenting, marks on lines, one undo for all.
//
// The text stays in the textarea, so forms, screen readers and spell checkers see it; below it the same text is painted.
// Tab and Shift+Tab indent; Escape and then Tab leaves. Undo also reaches over changes that were made from outside.

const PAUSE_MS = 600;
const MOST_PAINTED = 3_000;
const MOST_KEPT = 200;
const TOKEN = /(#.*$)|("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')|([\w.-]+)(?=\s*:(?:\s|$))|(?<![\w.])(-?\d[\d_.]*(?:e[-+]?\d+)?|true|false|null)(?![\w.])/g;
const KINDS = [, "note", "text", "key", "value"];

class YamlEditor extends HTMLElement {
  /** @type {{line: number, message: string}[]} */
  wrong = [];
  past = [];
  future = [];

  connectedCallback() {
    if (this.area) return;
    this.area = this.querySelector("textarea");
    this.paint = Object.assign(document.createElement("pre"), { className: "paint", ariaHidden: "true" });
    this.said = Object.assign(document.createElement("p"), { className: "unseen", role: "status", id: `${this.area.id}-said` });
    const box = Object.assign(document.createElement("div"), { className: "box" });
    const sheet = Object.assign(document.createElement("div"), { className: "sheet" });
    sheet.append(this.paint, this.area);
    box.append(sheet);
    this.append(box, this.said);
    this.area.wrap = "off";
    this.area.setAttribute("aria-describedby", this.said.id);
    this.shown = this.area.value;
    this.area.addEventListener("input", () => this.typed());
    this.area.addEventListener("keydown", (event) => this.key(event));
    this.area.addEventListener("beforeinput", (event) => {
      if (event.inputType === "historyUndo") { event.preventDefault(); this.step(this.past, this.future); }
      if (event.inputType === "historyRedo") { event.preventDefault(); this.step(this.future, this.past); }
    });
    this.draw();
  }

  get value() { return this.area.value; }

  /** Changes the text from outside; the caret stays where it was. @param {string} text */
  set value(text) {
    if (text === this.area.value) return;
    this.remember(true);
    const { selectionStart: start, selectionEnd: end } = this.area;
    this.area.value = text;
    if (document.activeElement === this.area) this.area.setSelectionRange(start, end);
    this.shown = text;
    this.draw();
  }

  /** Marks lines. @param {{line: number, message: string}[]} wrong */
  set marks(wrong) {
    this.wrong = wrong;
    this.area.ariaInvalid = wrong.length ? "true" : null;
    const said = wrong.slice(0, 5).map((one) => `Line ${one.line}: ${one.message}`).join(" ");
    if (this.said.textContent !== said) this.said.textContent = said;
    this.draw();
  }

  /** Puts the caret on a line. @param {number} line from 1 */
  goTo(line) {
    const lines = this.value.split("\n");
    const at = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    this.area.focus();
    this.area.setSelectionRange(at, at + (lines[line - 1]?.length ?? 0));
    this.paint.children[line - 1]?.scrollIntoView({ block: "nearest", inline: "start" });
  }

  typed() {
    this.remember();
    this.shown = this.value;
    this.draw();
    this.dispatchEvent(new CustomEvent("edit", { bubbles: true }));
  }

  /** Keeps the text before a change, once for each burst of typing. @param {boolean} [anew] */
  remember(anew = false) {
    const now = Date.now();
    if (anew || now - (this.at ?? 0) > PAUSE_MS) {
      this.past.push(this.shown);
      if (this.past.length > MOST_KEPT) this.past.shift();
    }
    this.at = anew ? 0 : now;
    this.future.length = 0;
  }

  /** @param {string[]} from @param {string[]} to */
  step(from, to) {
    if (!from.length) return;
    to.push(this.value);
    const text = from.pop();
    const same = [...text].findIndex((letter, at) => letter !== this.value[at]);
    this.area.value = text;
    this.area.setSelectionRange(same < 0 ? text.length : same, same < 0 ? text.length : same);
    this.shown = text;
    this.at = 0;
    this.draw();
    this.dispatchEvent(new CustomEvent("edit", { bubbles: true }));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key.toLowerCase() === "z") {
      event.preventDefault();
      if (event.shiftKey) this.step(this.future, this.past);
      else this.step(this.past, this.future);
    } else if (command && event.key.toLowerCase() === "y") {
      event.preventDefault();
      this.step(this.future, this.past);
    } else if (event.key === "Escape") {
      this.leaves = true;
      event.stopPropagation();
      return;
    } else if (event.key === "Tab" && !this.leaves && !command && !event.altKey) {
      event.preventDefault();
      this.indent(event.shiftKey);
    } else if (event.key === "Enter" && !command && !event.shiftKey) {
      event.preventDefault();
      const before = this.value.slice(0, this.area.selectionStart).split("\n").at(-1);
      this.insert(`\n${before.match(/^ */)[0]}${/:\s*$/.test(before) ? "  " : ""}`);
    }
    this.leaves = false;
  }

  /** @param {string} text */
  insert(text) {
    this.area.setRangeText(text, this.area.selectionStart, this.area.selectionEnd, "end");
    this.typed();
  }

  /** @param {boolean} back */
  indent(back) {
    const { selectionStart: start, selectionEnd: end } = this.area;
    if (start === end && !back) return this.insert("  ");
    const from = this.value.lastIndexOf("\n", start - 1) + 1;
    const lines = this.value.slice(from, end).split("\n");
    const moved = lines.map((line) => (back ? line.replace(/^ {1,2}/, "") : `  ${line}`));
    const first = moved[0].length - lines[0].length;
    this.area.setRangeText(moved.join("\n"), from, end);
    this.area.setSelectionRange(Math.max(from, start + first), end + moved.join("").length - lines.join("").length);
    this.typed();
  }

  /** Paints the text; only lines that changed are made anew. */
  draw() {
    const lines = this.value.split("\n");
    const wrong = new Map(this.wrong.map((one) => [Math.min(one.line, lines.length), one.message]));
    const plain = lines.length > MOST_PAINTED;
    this.style.setProperty("--digits", String(String(lines.length).length));
    while (this.paint.children.length > lines.length) this.paint.lastChild.remove();
    lines.forEach((line, at) => {
      let row = this.paint.children[at];
      if (!row) this.paint.append(row = document.createElement("div"));
      if (row.line !== line) row.replaceChildren(...(plain ? [line] : coloured(line)), "\n");
      row.line = line;
      row.classList.toggle("wrong", wrong.has(at + 1));
    });
  }
}

/** @param {string} line @returns {(string | HTMLElement)[]} */
function coloured(line) {
  const parts = [];
  let at = 0;
  for (const found of line.slice(0, 2_000).matchAll(TOKEN)) {
    const kind = KINDS[found.findIndex((group, number) => number && group !== undefined)];
    if (kind === "note" && found.index && line[found.index - 1] !== " ") continue;
    parts.push(line.slice(at, found.index));
    parts.push(Object.assign(document.createElement("span"), { className: `y-${kind}`, textContent: found[0] }));
    at = found.index + found[0].length;
  }
  parts.push(line.slice(at));
  return parts;
}

customElements.define("yaml-editor", YamlEditor);
