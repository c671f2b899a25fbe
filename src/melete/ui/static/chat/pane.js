// <chat-pane>: one model and one conversation with it: streaming, stopping, regenerating, branches, tool calls, verdicts.
//
// `answer` streams from the API, runs the calculator when a model calls it, and goes on until the model answers in words.
// An agent's actions come one by one, each with the verdict of its guard.

import { due, message, next, verdict, confirm } from "./acting.js";
import { complete } from "./api.js";
import { cardOf } from "./card.js";
import { add, asking, choose, drop, path, plain, siblings } from "./store.js";
import { addCall, CALCULATOR, run } from "./tools.js";
import { toast } from "../shell.js";

const MOST_ROUNDS = 6;
const MOST_STEPS = 24;
const REDRAW_MS = 50;
/** From the end; who is nearer follows it. */
const NEAR_PX = 80;
const ROOMY = 256;

class ChatPane extends HTMLElement {
  /** Shows a pane of a conversation. @param {any} box the <chat-box> @param {import("./store.js").Pane} pane */
  begin(box, pane) {
    this.box = box;
    this.pane = pane;
    this.conversation = box.conversation;
    /** @type {AbortController | null} */
    this.running = null;
    this.log = this.querySelector(".log");
    this.talk = this.querySelector(".talk");
    // Whoever has scrolled up reads there; else the end stays in sight, however the log grows.
    this.following = true;
    this.talk.addEventListener("scroll", () => (this.following = this.below() < NEAR_PX));
    new ResizeObserver(() => this.toEnd()).observe(this.log);
    this.select = this.querySelector("select");
    this.select.addEventListener("change", () => this.box.choose(this, this.select.value));
    this.addEventListener("click", (event) => this.click(event));
    this.addEventListener("submit", (event) => this.submit(event));
    this.models();
    this.draw();
    this.toEnd(true);
  }

  get served() { return this.box.models.find((one) => one.id === this.pane.model); }

  get agent() { return this.served?.agent ?? ""; }

  /** Fills the list of models; one that is not loaded any more stays named. */
  models() {
    const option = (id, text = id) => Object.assign(document.createElement("option"), { value: id, textContent: text });
    const { models } = this.box;
    const group = (label, found) => {
      const made = Object.assign(document.createElement("optgroup"), { label });
      made.append(...found.map((one) => option(one.id)));
      return found.length ? [made] : [];
    };
    const gone = this.pane.model && !models.some((one) => one.id === this.pane.model);
    this.select.replaceChildren(...group("Models", models.filter((one) => !one.agent)),
      ...group("Agents", models.filter((one) => one.agent)), ...(gone ? [option(this.pane.model, `${this.pane.model} (not loaded)`)] : []));
    this.select.value = this.pane.model;
    this.select.closest(".picker").hidden = !this.pane.model;
    this.querySelector("[data-role=agent]").hidden = !this.agent;
    this.welcome();
  }

  // Talking.

  async say(text) {
    add(this.pane, { role: "user", content: text });
    this.draw();
    this.toEnd(true);
    await this.answer();
  }

  async answer(does = (signal) => (this.agent ? this.converse(signal) : this.generate(signal))) {
    if (this.running) return;
    const abort = (this.running = new AbortController());
    this.querySelector(".trouble")?.remove();
    this.busy(true);
    this.box.tell("The model is answering.");
    let problem = "";
    try {
      await does(abort.signal);
      this.box.tell("The answer is complete.");
    } catch (error) {
      if (abort.signal.aborted) this.box.tell("Stopped.");
      else problem = error.message;
    }
    this.running = null;
    this.busy(false);
    this.box.save(this);
    if (problem) this.trouble(problem);
    this.toEnd(Boolean(problem));
  }

  stop() { this.running?.abort(); }

  async generate(signal) {
    for (let round = 0; round < MOST_ROUNDS; round++) {
      const node = await this.stream(signal);
      if (!node.tool_calls) return;
      node.results = {};
      for (const call of node.tool_calls) {
        node.results[call.id] = await run(call, signal);
        add(this.pane, { role: "tool", tool_call_id: call.id, content: node.results[call.id] });
      }
      this.fill(this.articleOf(node), node);
      this.box.save(this);
    }
  }

  async stream(signal) {
    const request = this.request();
    const node = add(this.pane, { role: "assistant", content: "" });
    const article = this.append(node, "busy");
    const redraw = throttle(() => (this.fill(article, node), this.toEnd()), REDRAW_MS);
    const began = performance.now();
    let first = 0;
    let ended = false;
    try {
      for await (const chunk of complete(request, signal)) {
        const delta = chunk.choices[0]?.delta;
        if (!first && (delta?.content || delta?.tool_calls)) first = performance.now();
        if (chunk.dropped_messages) node.dropped = chunk.dropped_messages;
        node.content += delta?.content ?? "";
        for (const part of delta?.tool_calls ?? []) addCall((node.tool_calls ??= []), part);
        if (chunk.usage) node.stats = speed(chunk.usage.completion_tokens, began, first, performance.now());
        redraw();
      }
      ended = true;
    } catch (error) {
      // Half a call cannot be answered, so only the words of a broken answer stay.
      delete node.tool_calls;
      throw error;
    } finally {
      redraw.cancel();
      article.classList.remove("busy");
      if (node.content || node.tool_calls || ended) {
        this.fill(article, node);
        article.querySelector(".body").finish();
      } else {
        drop(this.pane, node);
        article.remove();
      }
    }
    return node;
  }

  /** Lets the agent act until a person is due. */
  async converse(signal, ask = () => next(this.pane, signal)) {
    for (let step = 0; step < MOST_STEPS; step++) {
      const article = this.append(null, "busy");
      try {
        const began = performance.now();
        const reply = await ask();
        const node = add(this.pane, message(reply));
        const tokens = reply.usage.completion_tokens;
        if (tokens) node.stats = speed(tokens, began, began, performance.now());
        article.node = node;
      } finally {
        article.classList.remove("busy");
        if (!article.node) article.remove();
      }
      this.know();
      if (!(await this.settle(article, signal))) return;
      ask = () => next(this.pane, signal);
    }
  }

  /** What follows an action by itself; whether the agent goes on. */
  async settle(article, signal) {
    const { node } = article;
    const [call] = node.tool_calls ?? [];
    if (due(node) === "agent") {
      this.result(node, `${node.verdict.rule === "schema" ? "Error" : "Refused"}: ${node.verdict.reasons[0] ?? "refused"}`);
      this.know();
    } else if (due(node) === "result" && call.function.name === "calculator") {
      this.result(node, await run({ function: { ...call.function, arguments: JSON.stringify(node.verdict.execute.arguments ?? {}) } }, signal));
    }
    this.fill(article, node);
    this.box.save(this);
    this.toEnd();
    return Boolean(node.results);
  }

  /** The server knows all that is said so far. */
  know() { this.pane.session.told = this.pane.leaf; }

  result(node, content, ok = true) {
    const [call] = node.tool_calls;
    node.results = { [call.id]: content };
    add(this.pane, { role: "tool", tool_call_id: call.id, content, ...(!ok && { ok }) });
  }

  async confirm(article, yes) {
    const { node } = article;
    await this.answer(async (signal) => {
      if (!yes) {
        this.result(node, `Refused: ${node.verdict.reasons[0] ?? "it was not confirmed"}`);
        this.fill(article, node);
        return this.converse(signal, () => confirm(this.pane, false, signal));
      }
      node.verdict = { ...verdict(await confirm(this.pane, true, signal)), confirmed: true };
      if (await this.settle(article, signal)) await this.converse(signal);
    });
  }

  request() {
    const { system, temperature, top_p, max_tokens, seed, stop, calculator } = this.box.settings;
    const messages = plain(path(this.pane));
    // A small context has no room for the description of a tool.
    const roomy = (this.served?.context ?? Infinity) >= ROOMY;
    const stops = stop.split("\n").filter(Boolean).slice(0, 4);
    return {
      model: this.pane.model,
      messages: system.trim() ? [{ role: "system", content: system }, ...messages] : messages,
      truncation: "auto",
      temperature: Number(temperature),
      top_p: Number(top_p),
      ...(max_tokens && { max_tokens: Number(max_tokens) }),
      ...(seed !== "" && { seed: Number(seed) }),
      ...(stops.length && { stop: stops }),
      ...(calculator && roomy && { tools: [CALCULATOR] }),
    };
  }

  // Drawing.

  draw() {
    this.log.replaceChildren();
    for (const node of path(this.pane)) {
      if (node.role === "user") this.fillUser(this.append(node), node);
      if (node.role === "assistant") this.fill(this.append(node), node);
    }
    this.welcome();
  }

  append(node, state) {
    const article = this.box.clone(node?.role === "user" ? "user" : "assistant");
    article.node = node;
    if (state) article.classList.add(state);
    this.log.append(article);
    this.welcome();
    return article;
  }

  articleOf(node) { return [...this.log.children].find((one) => one.node === node); }

  welcome() {
    const place = this.querySelector(".welcome");
    const kind = this.log.childElementCount ? "" : this.box.ready && !this.pane.model ? "nothing" : this.pane.model ? "welcome" : "";
    if (place.dataset.kind !== kind) place.replaceChildren(...(kind ? [this.box.clone(kind)] : []));
    place.dataset.kind = kind;
    place.hidden = !kind;
    const name = place.querySelector("strong");
    if (name) name.textContent = this.pane.model;
  }

  fillUser(article, node) {
    article.querySelector(".body").textContent = node.content;
    this.branches(article, node);
  }

  fill(article, node) {
    const body = article.querySelector(".body");
    if (body.text !== node.content) body.text = node.content;
    article.classList.toggle("called", Boolean(node.tool_calls));
    const dropped = node.dropped ? `The context is full: without the first ${node.dropped} messages` : "";
    const blank = node.stats && !node.content && !node.tool_calls && !node.verdict ? "an empty answer" : "";
    article.querySelector(".stats").textContent = [blank, node.stats, dropped].filter(Boolean).join(" · ");
    const cards = article.querySelector(".cards");
    const calls = node.withheld ? [{ function: { name: "message", arguments: "" } }] : node.tool_calls ?? [];
    for (const [at, call] of calls.entries()) {
      const card = cards.children[at] ?? cards.appendChild(this.box.clone("card"));
      cardOf(card, call, node, !article.classList.contains("busy"));
    }
    const waits = due(node);
    article.querySelector(".due")?.remove();
    if (node === this.pane.nodes[this.pane.leaf] && (waits === "result" || waits === "confirm")) article.append(this.box.clone(waits));
    this.branches(article, node);
  }

  branches(article, node) {
    const all = siblings(this.pane, node);
    const place = article.querySelector(".branches");
    place.hidden = all.length < 2;
    place.querySelector("span").textContent = `${all.indexOf(node) + 1} / ${all.length}`;
  }

  trouble(text) {
    const box = this.box.clone("problem");
    box.querySelector("p").textContent = text;
    this.log.append(box);
  }

  busy(running) {
    this.log.setAttribute("aria-busy", String(running));
    this.select.disabled = running;
    this.box.busy();
  }

  toEnd(always = false) {
    // Who has just scrolled up may be ahead of the event that says so.
    if (this.talk.scrollTop < this.top && this.below() >= NEAR_PX) this.following = false;
    if (always || this.following) this.talk.scrollTop = this.talk.scrollHeight;
    this.top = this.talk.scrollTop;
  }

  /** Pixels below what is in sight. */
  below() { return this.talk.scrollHeight - this.talk.scrollTop - this.talk.clientHeight; }

  // What a person does in it.

  click(event) {
    const button = event.target.closest("button");
    const article = event.target.closest("article");
    if (!button) return;
    if (button.dataset.say) this.box.say(button.dataset.say);
    if (button.dataset.pane === "close") this.box.close(this);
    const node = article?.node;
    const acts = {
      copy: () => navigator.clipboard.writeText(node.content).then(() => toast("Copied.")),
      edit: () => this.edit(article),
      again: () => this.again(node),
      retry: () => this.again(this.pane.nodes[this.pane.leaf]),
      halt: () => this.stop(),
      before: () => this.turn(node, -1),
      after: () => this.turn(node, 1),
      yes: () => this.confirm(article, true),
      no: () => this.confirm(article, false),
    };
    acts[button.dataset.act]?.();
  }

  submit(event) {
    const article = event.target.closest("article");
    if (!event.target.matches(".due")) return;
    event.preventDefault();
    this.result(article.node, event.target.querySelector("textarea").value, event.submitter?.value !== "failed");
    this.fill(article, article.node);
    this.answer();
  }

  again(node) {
    if (this.running || !node) return;
    // What waits for the agent after a result is asked again; else the question is answered anew.
    if (node.role !== "tool" || !this.agent) this.pane.leaf = this.pane.nodes.indexOf(asking(this.pane, node));
    this.draw();
    this.answer();
  }

  turn(node, by) {
    const all = siblings(this.pane, node);
    if (this.running) return;
    choose(this.pane, all[(all.indexOf(node) + by + all.length) % all.length]);
    this.draw();
    this.box.save(this);
  }

  edit(article) {
    if (this.running) return;
    const form = this.box.clone("edit");
    const area = form.querySelector("textarea");
    area.value = article.node.content;
    const close = () => (form.replaceWith(article), article.querySelector("[data-act=edit]").focus());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (area.value.trim()) this.box.edit(this, article.node, area.value);
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
}

/** A stretch that a rate may be told of. */
const ENOUGH_MS = 100;

/** Tokens of an answer, how many came a second once they came, and after how long the first one did. */
function speed(tokens, began, first, ended) {
  const many = `${tokens} ${tokens === 1 ? "token" : "tokens"}`;
  // What came in one piece (an agent's judged answer, a few tokens) says nothing about the time after its first token.
  const streamed = first > began && tokens > 1 && ended - first > ENOUGH_MS;
  const rate = Math.round(((streamed ? tokens - 1 : tokens) / Math.max(ended - (streamed ? first : began), 1)) * 1000);
  const wait = first > began ? ` · first after ${Math.round(first - began).toLocaleString()} ms` : "";
  return `${many} · ${rate.toLocaleString()} a second${wait}`;
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

customElements.define("chat-pane", ChatPane);
