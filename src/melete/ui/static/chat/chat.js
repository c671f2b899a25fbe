// <chat-box>: the chat page: conversations, one pane or two side by side, the message box, settings, models, code.
//
// A conversation is kept in localStorage and shown at /chat#ID; `?model=ID&compare=ID` says who answers a new one, `?q=`
// what is in the box; a model that is not loaded yet is loaded first. What is being written survives a reload.

import "../el/mark-down.js";
import { toast } from "../shell.js";
import * as api from "./api.js";
import { asJson, asMarkdown, curl, download, python } from "./code.js";
import { CHANGED } from "./shelf.js";
import "./pane.js";
import * as store from "./store.js";

const DRAFT = "melete.chat.draft";
const MODEL = "melete.model";

class ChatBox extends HTMLElement {
  connectedCallback() {
    this.parts = Object.fromEntries([...this.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    this.input = this.querySelector("#composer");
    this.list = this.querySelector("#history");
    this.settings = store.settings();
    /** @type {{id: string, context: number, agent: string}[]} */
    this.models = [];
    this.ready = false;
    this.input.value = sessionStorage.getItem(DRAFT) ?? "";
    this.listen();
    this.fillSettings();
    this.open();
    this.start();
  }

  get panes() { return [...this.parts.panes.children]; }

  clone(name) { return this.parts[`${name}-template`].content.firstElementChild.cloneNode(true); }

  /** Reads what is served, and loads the model that the address of a new conversation asks for. */
  async start() {
    await this.refresh();
    const wanted = new URLSearchParams(location.search).get("model");
    if (!wanted || location.hash || this.models.some((one) => one.id === wanted)) return;
    const late = setTimeout(() => toast(`Loading ${wanted} …`), 500);
    this.tell(`Loading ${wanted} …`);
    try {
      const made = await api.load(wanted);
      history.replaceState(null, "", address([made.id], ""));
      await this.refresh(made.id);
      this.tell(`${made.id} is loaded.`);
    } catch (error) {
      toast(error.message, true);
    }
    clearTimeout(late);
  }

  /** Reads what is served; a model that was just loaded is chosen where none was. @param {string} [loaded] */
  async refresh(loaded) {
    try {
      this.models = await api.served();
    } catch (error) {
      toast(error.message, true);
    }
    this.ready = true;
    const served = this.models.map((one) => one.id);
    const asked = new URLSearchParams(location.search);
    const wanted = [loaded, asked.get("model"), localStorage.getItem(MODEL), served[0]].find((id) => served.includes(id)) ?? "";
    for (const [at, element] of this.panes.entries()) {
      const { pane } = element;
      const other = at && served.includes(asked.get("compare")) ? asked.get("compare") : wanted;
      if ((loaded && !at || !served.includes(pane.model)) && !pane.nodes.length) pane.model = other;
      element.models();
    }
    this.busy();
  }

  // Conversations.

  open() {
    const asked = new URLSearchParams(location.search);
    const known = store.conversations().find((one) => one.id === location.hash.slice(1));
    for (const pane of this.panes) pane.stop();
    const served = this.models.map((one) => one.id);
    const usual = [asked.get("model"), localStorage.getItem(MODEL), served[0]].find((id) => id && (!this.ready || served.includes(id)));
    this.conversation = known ?? store.fresh([usual ?? "", ...(asked.has("compare") ? [asked.get("compare")] : [])]);
    if (!known && asked.has("q")) this.input.value = asked.get("q");
    this.draw();
    this.input.focus();
  }

  draw() {
    this.parts.panes.replaceChildren(...this.conversation.panes.map(() => this.clone("pane")));
    for (const [at, pane] of this.conversation.panes.entries()) this.panes[at].begin(this, pane);
    const two = this.panes.length > 1;
    this.parts.panes.classList.toggle("two", two);
    for (const element of this.panes) element.querySelector("[data-pane=close]").hidden = !two;
    document.querySelector("[data-chat=compare]").setAttribute("aria-pressed", String(two));
    this.drawList();
    this.busy();
  }

  begin() {
    this.list.classList.remove("open");
    const models = this.conversation.panes.map((pane) => pane.model).filter(Boolean);
    history.pushState(null, "", address(models, ""));
    this.open();
  }

  /** Keeps a conversation; a pane that is not shown any more has its own. @param {any} [element] */
  save(element = null) {
    const conversation = element?.conversation ?? this.conversation;
    if (!conversation.panes.some((pane) => pane.nodes.length)) return;
    store.keep(conversation);
    if (conversation === this.conversation) this.place();
    this.drawList();
  }

  place() {
    const { id, panes } = this.conversation;
    const kept = panes.some((pane) => pane.nodes.length) ? id : "";
    history.replaceState(null, "", address(panes.map((pane) => pane.model), kept));
  }

  choose(element, model) {
    element.pane.model = model;
    delete element.pane.session;
    localStorage.setItem(MODEL, model);
    element.models();
    this.place();
  }

  compare() {
    if (this.panes.some((pane) => pane.running)) return;
    const { panes } = this.conversation;
    if (panes.length > 1) panes.pop();
    else {
      const other = this.models.find((one) => one.id !== panes[0].model)?.id ?? panes[0].model;
      panes.push({ ...structuredClone(panes[0]), model: other, session: undefined });
    }
    this.draw();
    this.place();
    this.save();
  }

  close(element) {
    element.stop();
    this.conversation.panes = this.conversation.panes.filter((pane) => pane !== element.pane);
    this.draw();
    this.place();
    this.save();
  }

  forget(id) {
    store.forget(id);
    if (id === this.conversation.id) this.begin();
    else this.drawList();
  }

  drawList() {
    const rows = store.conversations().map((one) => {
      const row = this.clone("row");
      const link = row.querySelector("a");
      const title = store.title(one);
      link.textContent = title;
      link.href = `/chat#${one.id}`;
      if (one.id === this.conversation.id) link.setAttribute("aria-current", "page");
      row.querySelector("button").setAttribute("aria-label", `Delete the conversation: ${title}`);
      row.conversation = one.id;
      return row;
    });
    this.parts.conversations.replaceChildren(...rows);
  }

  // Talking.

  say(text) {
    if (!text.trim() || !this.free) return false;
    for (const pane of this.panes) pane.say(text);
    this.save();
    return true;
  }

  /** Says the same turn anew in both panes. */
  edit(element, node, text) {
    const turns = (pane) => store.path(pane).filter((one) => one.role === "user");
    const at = turns(element.pane).indexOf(node);
    for (const { pane } of this.panes) {
      const turn = turns(pane)[at];
      if (turn) pane.leaf = turn.parent;
    }
    this.say(text);
  }

  stop() { for (const pane of this.panes) pane.stop(); }

  get free() { return this.ready && this.panes.every((pane) => !pane.running && pane.pane.model); }

  busy() {
    const running = this.panes.some((pane) => pane.running);
    this.parts.send.hidden = running;
    this.parts.send.disabled = !this.free;
    this.parts.stop.hidden = !running;
  }

  tell(text) { this.parts.status.textContent = text; }

  // Settings.

  fillSettings() {
    for (const [name, value] of Object.entries(this.settings)) {
      const control = this.parts.settings.querySelector(`[name=${name}]`);
      if (!control) continue;
      if (control.type === "checkbox") control.checked = value;
      else control.value = value;
      const output = this.parts.settings.querySelector(`output[data-for=${name}]`);
      if (output) output.textContent = Number(value).toFixed(2);
    }
  }

  readSettings() {
    for (const name of Object.keys(store.DEFAULTS)) {
      const control = this.parts.settings.querySelector(`[name=${name}]`);
      this.settings[name] = control.type === "checkbox" ? control.checked : control.validity.valid ? control.value : "";
      control.setAttribute("aria-invalid", String(!control.validity.valid));
    }
    store.keepSettings(this.settings);
    this.fillSettings();
  }

  // Events.

  listen() {
    this.addEventListener("click", (event) => this.inList(event));
    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-chat]");
      if (button) this.does(button.dataset.chat);
    });
    this.parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.input.addEventListener("input", () => sessionStorage.setItem(DRAFT, this.input.value));
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.submit();
      } else if (event.key === "ArrowUp" && !this.input.value) {
        const last = [...this.panes[0].log.querySelectorAll(".user")].at(-1);
        if (last) this.panes[0].edit(last);
      }
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      if (this.list.classList.contains("open")) this.history();
      else this.stop();
    });
    this.parts.settings.addEventListener("input", () => this.readSettings());
    for (const name of ["settings", "models", "code"]) {
      this.parts[name].addEventListener("click", (event) => event.target === this.parts[name] && this.parts[name].close());
    }
    document.addEventListener(CHANGED, (event) => this.refresh(event.detail));
    addEventListener("popstate", () => this.open());
  }

  submit() {
    const text = this.input.value;
    if (!this.say(text)) return;
    this.input.value = "";
    sessionStorage.removeItem(DRAFT);
  }

  does(what) {
    const { settings, models, code } = this.parts;
    const { conversation } = this;
    const all = {
      new: () => this.begin(),
      stop: () => this.stop(),
      compare: () => this.compare(),
      history: () => this.history(),
      settings: () => settings.showModal(),
      models: () => (models.querySelector("model-shelf").fill(), models.showModal()),
      code: () => (this.fillCode(), code.showModal()),
      defaults: () => ((this.settings = { ...store.DEFAULTS }), this.fillSettings(), store.keepSettings(this.settings)),
      "copy-curl": () => copy(this.parts.curl.textContent),
      "copy-python": () => copy(this.parts.python.textContent),
      "export-json": () => download(`chat-${conversation.id}.json`, "application/json", asJson(conversation, this.settings)),
      "export-markdown": () => download(`chat-${conversation.id}.md`, "text/markdown", asMarkdown(conversation)),
    };
    all[what]?.();
  }

  fillCode() {
    this.parts.curl.textContent = this.panes.map(curl).join("\n\n");
    this.parts.python.textContent = this.panes.map(python).join("\n\n");
  }

  history() {
    const open = this.list.classList.toggle("open");
    document.querySelector(".tools [data-chat=history]").setAttribute("aria-expanded", String(open));
    if (open) this.list.querySelector("button").focus();
  }

  inList(event) {
    const row = event.target.closest(".history li");
    if (!row) return;
    if (event.target.closest("[data-act=forget]")) this.forget(row.conversation);
    else if (event.target.closest("a") && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      history.pushState(null, "", `/chat#${row.conversation}`);
      this.list.classList.remove("open");
      this.open();
    }
  }
}

const copy = (text) => navigator.clipboard.writeText(text).then(() => toast("Copied."));

function address([model, compare], id) {
  const query = new URLSearchParams({ ...(model && { model }), ...(compare && { compare }) }).toString();
  return `/chat${query && `?${query}`}${id && `#${id}`}`;
}

customElements.define("chat-box", ChatBox);
