// <note-field src="/api/v1/runs/ID/note">: a note in markdown that saves itself a second after the last key.
//
// It says which version it was made from (ETag): where somebody else has saved meanwhile, nothing is overwritten; both
// texts stay, and one chooses. What could not be saved is kept in the browser until it can.

import { signedIn } from "../ask.js";
import "./mark-down.js";

const PAUSE_MS = 1000;

class NoteField extends HTMLElement {
  connectedCallback() {
    this.src = this.getAttribute("src");
    this.key = `melete.note ${this.src}`;
    this.text = this.querySelector("textarea");
    this.state = this.querySelector("[data-part=state]");
    this.conflict = this.querySelector("[data-part=conflict]");
    this.preview = this.querySelector("mark-down");
    this.saved = this.text.value;
    this.tag = this.getAttribute("tag");
    const draft = localStorage.getItem(this.key);
    if (draft !== null && draft !== this.saved) {
      this.text.value = draft;
      this.later();
    }
    this.text.addEventListener("input", () => this.later());
    this.text.addEventListener("blur", () => this.save());
    this.addEventListener("click", (event) => {
      const choice = event.target.closest("[data-note]")?.dataset.note;
      if (choice === "mine") this.save(true);
      else if (choice === "theirs") this.load();
    });
    addEventListener("pagehide", () => this.save());
  }

  later() {
    localStorage.setItem(this.key, this.text.value);
    this.say("Not saved yet");
    this.show();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), PAUSE_MS);
  }

  /** Saves after what is being saved now, whose version the next one is made from. @param {boolean} [anyway] over what somebody else has saved */
  save(anyway = false) {
    clearTimeout(this.timer);
    this.saving = (this.saving ?? Promise.resolve()).then(() => this.put(anyway));
  }

  /** @param {boolean} anyway */
  async put(anyway) {
    const text = this.text.value;
    if (!anyway && (text === this.saved || !this.conflict.hidden)) return;
    const headers = { "Content-Type": "application/json", ...(anyway || !this.tag ? {} : { "If-Match": this.tag }) };
    let answer;
    try {
      answer = await signedIn(this.src, { method: "PUT", headers, body: JSON.stringify({ text }), keepalive: text.length < 60_000 });
    } catch {
      this.say("Not saved: the server cannot be reached. It is kept in this browser.");
      this.timer = setTimeout(() => this.save(), 5 * PAUSE_MS);
      return;
    }
    this.conflict.hidden = answer.status !== 412 && answer.status !== 409;
    if (!this.conflict.hidden) return this.say("Not saved: it was changed elsewhere.");
    if (!answer.ok) {
      const said = await answer.json().catch(() => ({}));
      return this.say(`Not saved: ${said.error?.message ?? answer.status}`);
    }
    this.tag = answer.headers.get("ETag") ?? this.tag;
    this.saved = text;
    if (this.text.value === text) localStorage.removeItem(this.key);
    this.say("Saved");
  }

  /** Takes what is on the server. */
  async load() {
    const answer = await signedIn(this.src);
    if (!answer.ok) return this.say("It could not be read.");
    this.tag = answer.headers.get("ETag");
    this.saved = this.text.value = (await answer.json()).text;
    localStorage.removeItem(this.key);
    this.conflict.hidden = true;
    this.show();
    this.say("Saved");
  }

  show() {
    this.preview.text = this.text.value;
  }

  say(text) { this.state.textContent = text; }
}

customElements.define("note-field", NoteField);
