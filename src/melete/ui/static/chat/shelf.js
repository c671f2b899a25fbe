// <model-shelf>: what this server serves, and what it could load: agents, checkpoints, any reference. One click loads.

import * as api from "./api.js";

/** Fired on the document when what is served has changed; `detail` is the id that was loaded, if one was. */
export const CHANGED = "models-changed";

class ModelShelf extends HTMLElement {
  connectedCallback() {
    this.innerHTML = "<section><h3>Served now</h3><ul></ul></section><section><h3>Ready to load</h3><ul></ul></section>"
      + '<form class="other"><label class="field"><span>Another one</span><input name="ref" required maxlength="500" autocomplete="off">'
      + "<small>A run, a checkpoint's folder, or a model of the Hugging Face hub.</small></label>"
      + '<button class="plain">Load</button><p class="problem" role="alert" hidden></p></form>';
    const form = this.querySelector("form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.load(form.ref.value.trim(), form.querySelector("button"), form.querySelector(".problem"));
    });
    this.fill();
  }

  /** Reads both lists anew. */
  async fill() {
    const [now, ready] = this.querySelectorAll("ul");
    try {
      const [served, loadable] = await Promise.all([api.served(), api.loadable()]);
      now.replaceChildren(...served.map((one) => this.row(one.id, about(one), "Unload", (button, problem) => this.unload(one.id, button, problem))));
      now.parentElement.hidden = !served.length;
      const known = new Set(served.map((one) => one.id));
      const fresh = loadable.filter((one) => !known.has(one.ref));
      ready.replaceChildren(...fresh.map((one) => this.row(one.title, one.note, "Load", (button, problem) => this.load(one.ref, button, problem))));
    } catch (error) {
      ready.replaceChildren(Object.assign(document.createElement("li"), { className: "problem", textContent: error.message }));
    }
  }

  row(title, note, verb, does) {
    const row = document.querySelector("[data-part=shelf-template]").content.firstElementChild.cloneNode(true);
    const [name, more, button, problem] = ["b", "small", "button", ".problem"].map((one) => row.querySelector(one));
    name.textContent = title;
    more.textContent = note;
    button.textContent = verb;
    button.setAttribute("aria-label", `${verb} ${title}`);
    button.addEventListener("click", () => does(button, problem));
    return row;
  }

  load(ref, button, problem) {
    return this.change(() => api.load(ref), "Loading", button, problem);
  }

  unload(id, button, problem) {
    return this.change(() => api.unload(id), "Unloading", button, problem);
  }

  /** Does something that may take seconds, and says how long it has been at it. */
  async change(does, doing, button, problem) {
    const began = performance.now();
    const verb = button.textContent;
    const tell = () => (button.textContent = `${doing} … ${Math.round((performance.now() - began) / 1000)} s`);
    const timer = setInterval(tell, 1000);
    button.disabled = true;
    problem.hidden = true;
    tell();
    try {
      const made = await does();
      await this.fill();
      document.dispatchEvent(new CustomEvent(CHANGED, { detail: made?.id }));
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    } finally {
      clearInterval(timer);
      button.textContent = verb;
      button.disabled = false;
    }
  }
}

const about = ({ context, agent }) => `${agent ? "guarded agent · " : ""}${context.toLocaleString()} tokens of context`;

customElements.define("model-shelf", ModelShelf);
