// <job-form src="/parts/jobs/draft">: a form and a <yaml-editor> beside it, two views of one text that the server keeps
// in step. What is changed in the form is sent as edits; text, form and problems come back. Nothing is judged here.
//
// Edits stay until an answer holds them, so none is lost while one types on, the server restarts or the sign-in has run
// out. The text is kept in this browser until it was submitted.

import { ask } from "../ask.js";
import { toast } from "../shell.js";

const PREFIX = "melete.job.";
const MOST_KEPT = 20;
const TYPING_MS = 250;
const AGAIN_MS = 2_000;

class JobForm extends HTMLElement {
  /** Changes of the form that no answer holds yet. @type {Map<string, object>} */
  edits = new Map();
  version = 0;
  settled = 0;

  connectedCallback() {
    this.editor = this.querySelector("yaml-editor");
    this.begun = this.editor.value;
    const form = this.part("form");
    form.addEventListener("input", ({ target }) => target.matches("[data-place]") && this.changed(target, TYPING_MS));
    form.addEventListener("change", ({ target }) => this.edits.has(target.dataset.place) && this.changed(target, 0));
    this.addEventListener("edit", () => this.touch(TYPING_MS));
    this.addEventListener("click", ({ target }) => this.pressed(target));
    this.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.part("submit").requestSubmit();
    });
    this.part("submit").addEventListener("submit", (event) => this.submits(event), { capture: true });
    this.part("submit").addEventListener("htmx:after:request", ({ detail: { ctx } }) => {
      if (ctx.response.status < 400) localStorage.removeItem(this.name);
    });
    this.restore();
    if (!this.version) this.ask();
  }

  /** @param {string} name @returns {HTMLElement} */
  part(name) { return this.querySelector(`[data-part=${name}]`); }

  get name() { return `${PREFIX}${location.search}`; }

  /** @param {HTMLInputElement} field @param {number} wait_ms */
  changed(field, wait_ms) {
    const { place, reads } = field.dataset;
    const raw = field.type === "checkbox" ? String(field.checked) : field.value;
    const back = raw === field.dataset.default && !field.required;
    this.edits.delete(place);
    this.edits.set(place, back ? { place: JSON.parse(place), act: "remove" }
      : { place: JSON.parse(place), raw, reads, nullable: "nullable" in field.dataset });
    this.touch(wait_ms);
  }

  /** @param {HTMLElement} target */
  pressed(target) {
    const line = target.closest("[data-line]");
    if (line) this.editor.goTo(Number(line.dataset.line));
    const edit = target.closest("[data-edit]");
    if (edit) this.act(JSON.parse(edit.dataset.edit));
    const adds = target.closest("[data-adds]");
    if (adds) this.act({ add: this.querySelector(`#${adds.dataset.adds}`).value });
    if (target.closest("[data-part=anew]")) {
      localStorage.removeItem(this.name);
      this.edits.clear();
      this.editor.value = this.begun;
      this.part("kept").hidden = true;
      this.touch(0, false);
    }
  }

  /** @param {object} edit */
  act(edit) {
    this.edits.set(`act ${this.version}`, edit);
    this.touch(0);
  }

  /** Something was changed: keeps the text, and asks when there is a pause. @param {number} wait_ms @param {boolean} [keeps] */
  touch(wait_ms, keeps = true) {
    this.version += 1;
    if (keeps) this.keep();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), wait_ms);
  }

  async ask() {
    clearTimeout(this.timer);
    const version = this.version;
    const held = [...this.edits];
    this.asked?.abort();
    this.asked = new AbortController();
    try {
      const json = { text: this.editor.value, edits: held.map(([, edit]) => edit) };
      const answer = await ask(this.getAttribute("src"), { method: "POST", json, signal: this.asked.signal });
      if (version === this.version) this.take(answer);
      if (version === this.version) this.settled = version;
    } catch (error) {
      if (error.name === "AbortError") return;
      if (version !== this.version) return;
      this.part("away").hidden = error.status !== 0;
      if (error.status === 0) {
        this.timer = setTimeout(() => this.ask(), AGAIN_MS);
        return;
      }
      toast(error.message, true);
      // A text that was broken meanwhile takes no edits; what is wrong with it is said without them.
      if (held.length) this.timer = setTimeout(() => this.ask());
      this.edits.clear();
    }
  }

  /** @param {{text: string, form: string | null, side: string, marks: any[], ok: boolean}} answer */
  take(answer) {
    this.edits.clear();
    this.part("away").hidden = true;
    if (answer.text !== this.editor.value) {
      this.editor.value = answer.text;
      this.keep();
    }
    this.editor.marks = answer.marks;
    this.part("broken").hidden = answer.form !== null;
    if (answer.form !== null) this.morph(this.part("form"), answer.form);
    else this.part("set").disabled = true;
    this.morph(this.part("side"), answer.side);
    this.toggleAttribute("data-ok", answer.ok);
  }

  /** @param {HTMLElement} root @param {string} html */
  morph(root, html) {
    const folds = new Map([...root.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
    const added = root.querySelector("#add-process")?.value;
    htmx.swap({ target: root, text: html, swap: "innerMorph" });
    for (const one of root.querySelectorAll("details[id]")) if (folds.has(one.id)) one.open = folds.get(one.id) || "problem" in one.dataset;
    for (const field of root.querySelectorAll("[data-place]")) {
      if (field === document.activeElement) continue;
      if (field.type === "checkbox") field.checked = field.defaultChecked;
      else if (field.matches("select")) field.value = field.querySelector("option[selected]")?.value ?? field.value;
      else if (field.value !== field.defaultValue) field.value = field.defaultValue;
    }
    if (added) root.querySelector("#add-process").value = added;
  }

  /** @param {SubmitEvent} event */
  async submits(event) {
    if (this.settled === this.version) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    await this.ask();
    if (this.settled === this.version) this.part("submit").requestSubmit();
  }

  keep() {
    localStorage.setItem(this.name, JSON.stringify({ text: this.editor.value, at: Date.now() }));
    const kept = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
    if (kept.length <= MOST_KEPT) return;
    const age = (key) => JSON.parse(localStorage.getItem(key)).at;
    localStorage.removeItem(kept.sort((a, b) => age(a) - age(b))[0]);
  }

  restore() {
    const kept = JSON.parse(localStorage.getItem(this.name) ?? "null");
    if (!kept || kept.text === this.begun) return;
    this.editor.value = kept.text;
    this.part("kept").hidden = false;
    this.touch(0);
  }
}

await customElements.whenDefined("yaml-editor");
customElements.define("job-form", JobForm);
