// <chat-box>: the chat page's one custom element. The markup is rendered by the server; this gives it its behaviour.
//
// A conversation is a list of OpenAI messages, kept in localStorage and shown at /chat#ID; /chat?q=TEXT&model=ID opens a
// new one. `answer` streams from the API, runs the calculator when the model calls it, and goes on until the model
// answers in words. An assistant message may also hold `stats`, `results` (call id to tool result) and `dropped`, the
// number of messages that the server left out because the conversation had outgrown the model's context.

import { complete } from "./api.js";
import { ready, show } from "./markdown.js";
import * as store from "./store.js";
import { addCall, asked, CALCULATOR, run } from "./tools.js";

const MOST_ROUNDS = 6;
const REDRAW_MS = 50;

class ChatBox extends HTMLElement {
  connectedCallback() {
    this.parts = Object.fromEntries([...this.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    this.input = this.querySelector("#composer");
    this.list = this.querySelector("#history");
    this.running = null;
    this.settings = store.settings();
    this.listen();
    this.fillSettings();
    ready.then(() => this.draw());
    this.open();
  }

  // ---- conversations

  open() {
    const asked = new URLSearchParams(location.search);
    const known = store.conversations().find((one) => one.id === location.hash.slice(1));
    this.stop();
    this.running = null;
    this.busy(false);
    const models = [...this.parts.model.options].map((option) => option.value);
    const wanted = known?.model ?? asked.get("model") ?? localStorage.getItem("melete.model");
    if (models.includes(wanted)) this.parts.model.value = wanted;
    this.conversation = known ?? store.fresh(this.parts.model.value);
    if (!known && asked.has("q")) this.input.value = asked.get("q");
    this.draw();
    this.toEnd(true);
    this.input.focus();
  }

  begin() {
    this.list.classList.remove("open");
    history.pushState(null, "", "/chat");
    this.open();
  }

  save() {
    if (!this.conversation.messages.length) return;
    this.conversation.model = this.parts.model.value;
    store.keep(this.conversation);
    if (location.hash.slice(1) !== this.conversation.id) history.replaceState(null, "", `/chat#${this.conversation.id}`);
    this.drawList();
  }

  // ---- talking

  async say(text) {
    if (!text.trim() || this.running) return;
    this.conversation.messages.push({ role: "user", content: text });
    this.save();
    this.draw();
    this.toEnd(true);
    await this.answer();
  }

  async again() {
    const last = this.conversation.messages.findLastIndex((message) => message.role === "user");
    if (this.running || last < 0) return;
    this.conversation.messages.length = last + 1;
    this.draw();
    await this.answer();
  }

  async answer() {
    const { conversation } = this;
    const abort = (this.running = new AbortController());
    const here = () => this.running === abort;
    let problem = "";
    this.tell("The model is answering.");
    this.busy(true);
    try {
      for (let round = 0; round < MOST_ROUNDS; round++) {
        const message = { role: "assistant", content: "" };
        const article = await this.stream(conversation, message, abort.signal);
        if (!message.tool_calls) break;
        await this.callTools(conversation, message, abort.signal);
        this.fillAssistant(article, message);
      }
      this.tell("The answer is complete.");
    } catch (error) {
      if (abort.signal.aborted) this.tell("Stopped.");
      else problem = error.message;
    }
    if (!here()) return store.keep(conversation);
    this.running = null;
    this.busy(false);
    this.save();
    this.draw();
    if (problem) this.drawProblem(problem);
    this.toEnd(Boolean(problem));
  }

  async stream(conversation, message, signal) {
    const request = this.request();
    const article = this.append(message);
    article.classList.add("busy");
    const redraw = throttle(() => (this.fillAssistant(article, message), this.toEnd()), REDRAW_MS);
    const began = performance.now();
    try {
      for await (const chunk of complete(request, signal)) {
        const delta = chunk.choices[0]?.delta;
        if (chunk.dropped_messages) message.dropped = chunk.dropped_messages;
        message.content += delta?.content ?? "";
        for (const part of delta?.tool_calls ?? []) addCall((message.tool_calls ??= []), part);
        if (chunk.usage) message.stats = speed(chunk.usage.completion_tokens, performance.now() - began);
        redraw();
      }
    } catch (error) {
      // Half a call cannot be answered, so only the words of a broken answer stay.
      delete message.tool_calls;
      throw error;
    } finally {
      redraw.cancel();
      article.classList.remove("busy");
      if (!message.content && !message.tool_calls) conversation.messages.pop();
      this.fillAssistant(article, message);
    }
    return article;
  }

  async callTools(conversation, message, signal) {
    message.results = {};
    for (const call of message.tool_calls) {
      message.results[call.id] = await run(call, signal);
      conversation.messages.push({ role: "tool", tool_call_id: call.id, content: message.results[call.id] });
    }
    store.keep(conversation);
  }

  request() {
    const { system, temperature, top_p, max_tokens, seed, calculator } = this.settings;
    const messages = this.conversation.messages.map(({ role, content, tool_calls, tool_call_id }) => ({
      role, content, ...(tool_calls && { tool_calls }), ...(tool_call_id && { tool_call_id }),
    }));
    return {
      model: this.parts.model.value,
      messages: system.trim() ? [{ role: "system", content: system }, ...messages] : messages,
      truncation: "auto",
      temperature: Number(temperature),
      top_p: Number(top_p),
      ...(max_tokens && { max_tokens: Number(max_tokens) }),
      ...(seed !== "" && { seed: Number(seed) }),
      ...(calculator && { tools: [CALCULATOR] }),
    };
  }

  stop() {
    this.running?.abort();
  }

  // ---- drawing

  draw() {
    const { log, empty } = this.parts;
    if (this.running) return;
    log.replaceChildren();
    for (const message of this.conversation.messages) this.drawMessage(message);
    empty.hidden = log.childElementCount > 0;
    this.parts["model-name"].textContent = this.parts.model.value;
    this.drawList();
  }

  drawMessage(message) {
    if (message.role === "user") this.drawUser(message);
    if (message.role === "assistant") {
      const article = clone(this.parts["assistant-template"]);
      this.parts.log.append(article);
      this.fillAssistant(article, message);
    }
  }

  append(message) {
    this.conversation.messages.push(message);
    this.parts.empty.hidden = true;
    this.parts.log.querySelector(".problem")?.remove();
    const article = clone(this.parts["assistant-template"]);
    this.parts.log.append(article);
    return article;
  }

  drawUser(message) {
    const article = clone(this.parts["user-template"]);
    article.message = message;
    article.querySelector(".body").textContent = message.content;
    this.parts.log.append(article);
  }

  fillAssistant(article, message) {
    article.message = message;
    const body = article.querySelector(".body");
    if (body.text !== message.content) {
      body.text = message.content;
      show(body, message.content);
    }
    article.classList.toggle("called", Boolean(message.tool_calls));
    const dropped = message.dropped ? `The context is full: without the first ${message.dropped} messages` : "";
    article.querySelector(".stats").textContent = [message.stats, dropped].filter(Boolean).join(" · ");
    const cards = article.querySelector(".cards");
    for (const [i, call] of (message.tool_calls ?? []).entries()) {
      const card = cards.children[i] ?? cards.appendChild(clone(this.parts["card-template"]));
      this.fillCard(card, call, message.results?.[call.id]);
    }
  }

  fillCard(card, call, result) {
    const failed = result?.startsWith("error:") ?? false;
    card.querySelector(".name").textContent = call.function.name || "a call that cannot be read";
    card.querySelector(".state").textContent = result === undefined ? "working …" : failed ? "failed" : "done";
    card.querySelector(".asked").textContent = asked(call.function.arguments);
    card.querySelector(".result").textContent = result ?? "";
    card.querySelector(".result-row").hidden = result === undefined;
    card.classList.toggle("failed", failed);
  }

  drawProblem(text) {
    const box = clone(this.parts["problem-template"]);
    box.querySelector("p").textContent = text;
    this.parts.log.append(box);
  }

  drawList() {
    const rows = store.conversations().map((one) => {
      const row = clone(this.parts["row-template"]);
      const link = row.querySelector("a");
      const title = one.messages[0]?.content.slice(0, 80) || "Empty";
      link.textContent = title;
      link.href = `/chat#${one.id}`;
      if (one.id === this.conversation.id) link.setAttribute("aria-current", "page");
      row.querySelector("button").setAttribute("aria-label", `Delete the conversation: ${title}`);
      row.conversation = one.id;
      return row;
    });
    this.parts.conversations.replaceChildren(...rows);
  }

  busy(running) {
    this.parts.send.hidden = running;
    this.parts.stop.hidden = !running;
    this.parts.log.setAttribute("aria-busy", String(running));
  }

  toEnd(always = false) {
    const talk = this.parts.log.parentElement;
    const near = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 160;
    if (always || near) talk.scrollTop = talk.scrollHeight;
  }

  tell(text) {
    this.parts.status.textContent = text;
  }

  // ---- editing

  edit(article) {
    if (this.running) return;
    const form = clone(this.parts["edit-template"]);
    const area = form.querySelector("textarea");
    area.value = article.message.content;
    const close = () => (form.replaceWith(article), article.querySelector("[data-act]").focus());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!area.value.trim()) return;
      this.conversation.messages.length = this.conversation.messages.indexOf(article.message);
      this.say(area.value);
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      } else if (event.key === "Escape") {
        event.stopPropagation();
        close();
      }
    });
    form.querySelector("[data-act=keep]").addEventListener("click", close);
    article.replaceWith(form);
    area.focus();
  }

  async copy(button, article) {
    await toClipboard(article.message.content);
    this.tell("Copied.");
    const use = button.querySelector("use");
    use.setAttribute("href", "#i-check");
    setTimeout(() => use.setAttribute("href", "#i-copy"), 1200);
  }

  // ---- settings and theme

  fillSettings() {
    for (const [name, value] of Object.entries(this.settings)) {
      const control = this.parts.settings.querySelector(`[name=${name}]`);
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

  theme() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
    const next = now === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    localStorage.setItem("melete.theme", next);
    this.tell(`${next} theme.`);
  }

  // ---- events

  listen() {
    this.addEventListener("click", (event) => this.click(event));
    this.parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.submit();
      } else if (event.key === "ArrowUp" && !this.input.value) {
        const last = [...this.parts.log.querySelectorAll(".user")].at(-1);
        if (last) this.edit(last);
      }
    });
    document.addEventListener("keydown", (event) => this.key(event));
    this.parts.settings.addEventListener("input", () => this.readSettings());
    this.parts.settings.addEventListener("click", (event) => {
      if (event.target === this.parts.settings) this.parts.settings.close();
    });
    this.parts.model.addEventListener("change", () => {
      localStorage.setItem("melete.model", this.parts.model.value);
      this.draw();
    });
    addEventListener("popstate", () => this.open());
  }

  submit() {
    if (this.running) return;
    const text = this.input.value;
    this.input.value = "";
    this.say(text);
  }

  click(event) {
    const button = event.target.closest("button, a");
    const article = event.target.closest("article");
    const row = event.target.closest("li");
    if (!button) return;
    if (row && button.tagName === "A") this.list.classList.remove("open");
    if (button.dataset.say) this.say(button.dataset.say);
    const does = {
      new: () => this.begin(),
      stop: () => this.stop(),
      theme: () => this.theme(),
      settings: () => this.parts.settings.showModal(),
      defaults: () => ((this.settings = { ...store.DEFAULTS }), this.fillSettings(), store.keepSettings(this.settings)),
      history: () => this.toggleList(),
    };
    const acts = {
      copy: () => this.copy(button, article),
      edit: () => this.edit(article),
      again: () => this.again(),
      forget: () => this.forget(row.conversation),
    };
    does[button.dataset.do]?.();
    acts[button.dataset.act]?.();
  }

  toggleList() {
    const open = this.list.classList.toggle("open");
    this.querySelector(".bar [data-do=history]").setAttribute("aria-expanded", String(open));
    if (open) this.list.querySelector("button").focus();
  }

  forget(id) {
    store.forget(id);
    if (id === this.conversation.id) this.begin();
    else this.drawList();
  }

  key(event) {
    const writing = event.target.matches?.("input, textarea, select");
    if (event.key === "Escape" && this.list.classList.contains("open")) this.toggleList();
    else if (event.key === "Escape" && this.running) this.stop();
    else if (event.key === "/" && !writing && !this.parts.settings.open) {
      event.preventDefault();
      this.input.focus();
    } else if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.begin();
    }
  }
}

async function toClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Over plain HTTP from another machine browsers have only the old way.
  const area = document.body.appendChild(document.createElement("textarea"));
  area.value = text;
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Tokens of an answer, and how many came a second from sending the question to the last of them. */
function speed(tokens, ms) {
  return `${tokens} ${tokens === 1 ? "token" : "tokens"} · ${Math.round((tokens / ms) * 1000)} a second`;
}

function clone(template) {
  return template.content.firstElementChild.cloneNode(true);
}

/** Calls `draw` at most once every `ms`, the last time for sure unless cancelled. */
function throttle(draw, ms) {
  let timer = 0;
  const call = () => {
    timer ||= setTimeout(() => ((timer = 0), draw()), ms);
  };
  call.cancel = () => clearTimeout(timer);
  return call;
}

customElements.define("chat-box", ChatBox);
