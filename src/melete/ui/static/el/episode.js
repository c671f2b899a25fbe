// <episode-player src="/api/v1/runs/ID/episodes/EID" files="/api/v1/runs/ID/files/">: one episode, step by step.
//
// Each step shows what was seen, proposed, judged, done, answered and rewarded; "Conversation" shows all steps in a row.
// The address keeps the step (#step=3), and every player of a page follows it, so two tries of a task go side by side.
// ← and → step, Home and End go to the ends, Space plays. An observation may be a text, an object, or an object with
// `image`, the path of a file of the run. All of it is hostile: it is only ever set as text.

import { ask } from "../ask.js";

const PLAY_MS = 1_600;
const VERDICTS = {
  allow: ["✓", "allowed"], clamp: ["≈", "clamped"], refuse: ["✕", "refused"], ask: ["?", "asked a person"],
  abort: ["■", "aborted"], "": ["!", "could not be judged"],
};

const PARTS = document.createElement("template");
PARTS.innerHTML = `
  <div class="player-bar" role="toolbar" aria-label="Steps">
    <button type="button" class="quiet small" data-go="first" aria-label="First step"><svg class="icon" viewBox="0 0 24 24"><path d="M17 5l-7 7 7 7M6 5v14"/></svg></button>
    <button type="button" class="quiet small" data-go="back" aria-label="Step back" aria-keyshortcuts="ArrowLeft"><svg class="icon"><use href="#i-back"/></svg></button>
    <button type="button" class="plain" data-go="play" aria-keyshortcuts="Space">Play</button>
    <button type="button" class="quiet small" data-go="next" aria-label="Step on" aria-keyshortcuts="ArrowRight"><svg class="icon"><use href="#i-next"/></svg></button>
    <button type="button" class="quiet small" data-go="last" aria-label="Last step"><svg class="icon" viewBox="0 0 24 24"><path d="M7 5l7 7-7 7M18 5v14"/></svg></button>
    <span class="fine" data-part="at"></span>
    <button type="button" class="quiet small" data-go="view" aria-pressed="false">Conversation</button>
  </div>
  <ol class="timeline" data-part="timeline" aria-label="All steps"></ol>
  <svg class="reward" data-part="reward" viewBox="0 0 300 44" preserveAspectRatio="none" role="img"><line class="grid"/><line class="now" y1="2" y2="42"/><polyline/></svg>
  <div class="step" data-part="step" tabindex="-1"></div>
  <div class="conversation" data-part="talk" hidden></div>
  <p class="unseen" aria-live="polite" data-part="said"></p>`;

/**
 * @typedef {{index: number, step: number | null, bytes: number, cut: boolean, observation: any, model_output: string,
 *   proposed: Record<string, any> | null, proposed_text: string, verdict: string, reasons: string[], rule: string,
 *   confirmed: boolean, executed: Record<string, any> | null, executed_text: string, result: any, ok: boolean,
 *   reward: number, total_reward: number}} Step
 */

/** An element with a class and text or children. @param {string} tag @param {string} name @param {(Node | string)[]} inside */
function el(tag, name, ...inside) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...inside);
  return made;
}

/** @param {any} value @returns {string} */
function words(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/** Text that may be JSON, laid out if it is. @param {any} value */
function block(value) {
  let text = words(value);
  if (typeof value === "string" && /^\s*[[{]/.test(value) && value.length < 20_000) {
    try { text = JSON.stringify(JSON.parse(value), null, 1); } catch { /* as it was written */ }
  }
  const made = el("pre", "wrapped", text);
  made.tabIndex = 0;
  return made;
}

/** @param {number} value */
function signed(value) { return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`; }

/** An action: a call with its arguments, a message, or any other as it is; what another one has changed is marked. @param {Record<string, any>} action @param {Record<string, any> | null} [was] */
function action(action, was = null) {
  if (action.type === "message") return el("blockquote", "", words(action.text));
  const box = el("div", "action");
  const { type, name, arguments: given, id, ...rest } = action;
  box.append(el("p", "mono call", name ? `${words(name)}` : words(type)));
  const values = given && typeof given === "object" && !Array.isArray(given) ? given : rest;
  const list = el("dl", "pairs");
  for (const [key, value] of Object.entries(values)) {
    const old = was?.arguments?.[key];
    const shown = typeof value === "object" && value !== null ? block(value) : el("span", "mono", words(value));
    const changed = was !== null && words(old) !== words(value);
    list.append(el("div", changed ? "changed" : "", el("dt", "mono", key),
      el("dd", "", ...(changed ? [el("del", "mono", words(old)), " → "] : []), shown)));
  }
  if (list.childElementCount) box.append(list);
  return box;
}

class EpisodePlayer extends HTMLElement {
  /** @type {Step[]} */
  steps = [];
  at = 0;
  timer = 0;

  async connectedCallback() {
    addEventListener("hashchange", this.follow);
    document.addEventListener("keydown", this.pressed);
    if (this.steps.length) return;
    try {
      await this.load();
    } catch (error) {
      this.replaceChildren(el("p", "problem", `The steps cannot be shown: ${error instanceof Error ? error.message : error}`));
      return;
    }
    this.replaceChildren(PARTS.content.cloneNode(true));
    this.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("[data-go], [data-step]") : null;
      if (button instanceof HTMLElement) this.act(button);
    });
    this.line();
    this.talk();
    this.follow();
    this.dataset.ready = "";
  }

  disconnectedCallback() {
    this.stop();
    removeEventListener("hashchange", this.follow);
    document.removeEventListener("keydown", this.pressed);
  }

  /** @param {string} name @returns {any} */
  part(name) { return this.querySelector(`[data-part=${name}]`); }

  async load() {
    /** @type {string | null} */
    let cursor = null;
    do {
      const query = new URLSearchParams({ limit: "200", ...(cursor && { cursor }) });
      const told = await ask(`${this.getAttribute("src")}?${query}`);
      this.steps.push(...told.data);
      this.criteria = { ...this.criteria, ...told.criteria };
      cursor = told.next_cursor;
    } while (cursor && this.steps.length < 5_000);
    if (!this.steps.length) throw new Error("it has none.");
  }

  follow = () => {
    const asked = Number(new URLSearchParams(location.hash.slice(1)).get("step") ?? 1);
    this.at = Math.max(0, Math.min(this.steps.length, Math.floor(asked) || 1) - 1);
    this.show();
  };

  /** @param {KeyboardEvent} event */
  pressed = (event) => {
    const target = /** @type {Element} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, textarea, select, dialog")) return;
    if (this !== document.querySelector("episode-player")) return;  // one answers for all
    if (event.key === " " && target.closest("button, a, summary")) return;
    const go = { ArrowLeft: "back", ArrowRight: "next", Home: "first", End: "last", " ": "play" }[event.key];
    if (!go) return;
    event.preventDefault();
    this.act(this.querySelector(`[data-go=${go}]`));
  };

  /** @param {HTMLElement} button */
  act(button) {
    const longest = Math.max(...[...document.querySelectorAll("episode-player")].map((one) => /** @type {EpisodePlayer} */ (one).steps.length));
    const now = Number(new URLSearchParams(location.hash.slice(1)).get("step") ?? 1) - 1;
    const place = { first: 0, back: now - 1, next: now + 1, last: longest - 1 }[button.dataset.go ?? ""];
    if (button.dataset.go === "play") return this.timer ? this.stop() : this.play(longest, now);
    if (button.dataset.go === "view") return this.toggle(button);
    this.stop();
    this.go(button.dataset.step !== undefined ? Number(button.dataset.step) : place ?? 0, longest);
  }

  /** @param {number} place @param {number} longest */
  go(place, longest) {
    const kept = Math.max(0, Math.min(longest - 1, place));
    history.replaceState(history.state, "", `#step=${kept + 1}`);
    dispatchEvent(new HashChangeEvent("hashchange"));
  }

  /** @param {number} longest @param {number} now */
  play(longest, now) {
    const button = this.querySelector("[data-go=play]");
    let next = now + 1 >= longest ? 0 : now + 1;
    button.textContent = "Pause";
    this.go(next, longest);
    this.timer = setInterval(() => {
      next += 1;
      if (next >= longest) return this.stop();
      this.go(next, longest);
    }, PLAY_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    const button = this.querySelector("[data-go=play]");
    if (button) button.textContent = "Play";
  }

  /** @param {HTMLElement} button */
  toggle(button) {
    const talk = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(talk));
    this.part("talk").hidden = !talk;
    this.part("step").hidden = talk;
  }

  /** The steps as a row of buttons, and the reward as a line. */
  line() {
    const marks = this.steps.map((step, place) => {
      const message = step.proposed?.type === "message";
      const [sign, name] = VERDICTS[step.verdict] ?? ["·", step.verdict];
      const failed = !message && step.executed !== null && !step.ok;
      const button = el("button", `mark-${failed ? "failed" : step.verdict || "none"}`, failed ? "✕" : message && step.verdict === "allow" ? "”" : sign);
      button.type = "button";
      button.dataset.step = String(place);
      button.title = `Step ${place + 1}: ${step.proposed_text || "nothing"} · ${failed ? "failed" : name} · ${signed(step.reward)}`;
      button.setAttribute("aria-label", button.title);
      return el("li", "", button);
    });
    this.part("timeline").replaceChildren(...marks);
    const totals = [0, ...this.steps.map((step) => step.total_reward)];
    const [low, high] = [Math.min(0, ...totals), Math.max(0, ...totals)];
    const y = (value) => 40 - 36 * (value - low) / (high - low || 1);
    this.points = totals.map((value, place) => [3 + 294 * place / (totals.length - 1), y(value)]);
    const svg = this.part("reward");
    svg.setAttribute("aria-label", `Reward over the steps: from 0 to ${signed(totals.at(-1) ?? 0)}, lowest ${signed(low)}, highest ${signed(high)}`);
    svg.querySelector("polyline").setAttribute("points", this.points.map((point) => point.map((one) => one.toFixed(1)).join(",")).join(" "));
    for (const [name, value] of [["x1", 0], ["x2", 300], ["y1", y(0)], ["y2", y(0)]]) svg.querySelector("line").setAttribute(name, String(value));
  }

  show() {
    const step = this.steps[this.at];
    if (!step || !this.part("step")) return;
    this.querySelectorAll(".timeline button").forEach((button, place) => {
      if (place === this.at) button.setAttribute("aria-current", "step");
      else button.removeAttribute("aria-current");
    });
    this.querySelector(".timeline [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    const [x] = this.points[this.at + 1];
    for (const end of ["x1", "x2"]) this.part("reward").querySelector(".now").setAttribute(end, x.toFixed(1));
    this.part("at").textContent = `${this.at + 1} / ${this.steps.length}`;
    this.part("step").replaceChildren(...this.panels(step));
    this.querySelectorAll(".conversation [aria-current]").forEach((one) => one.removeAttribute("aria-current"));
    this.part("talk").children[this.at]?.setAttribute("aria-current", "step");
    const [, name] = VERDICTS[step.verdict] ?? ["", step.verdict];
    this.part("said").textContent = `Step ${this.at + 1} of ${this.steps.length}: ${step.proposed_text.slice(0, 200)}; ${name}.`;
  }

  /** @param {Step} step @returns {Node[]} */
  panels(step) {
    const [sign, name] = VERDICTS[step.verdict] ?? ["·", step.verdict];
    const verdict = el("p", "", el("span", `verdict mark-${step.verdict || "none"}`, `${sign} ${name}`));
    if (step.rule) verdict.append(" ", el("span", "chip", `rule ${step.rule}`));
    if (step.confirmed) verdict.append(" ", el("span", "chip", "a person confirmed it"));
    const reasons = el("ul", "reasons", ...step.reasons.map((one) => el("li", "", one)));
    const same = JSON.stringify(step.proposed) === JSON.stringify(step.executed);
    const message = step.proposed?.type === "message";
    const done = step.executed ? (same ? el("p", "soft", "As proposed.") : action(step.executed, step.proposed))
      : el("p", message ? "soft" : "problem", message && step.verdict === "allow" ? "Said to the person." : "Nothing was executed.");
    const found = [
      this.panel("It saw", this.seen(step.observation)),
      this.panel("It proposed", ...(step.model_output && step.model_output !== step.proposed?.text ? [el("p", "soft", step.model_output)] : []),
        step.proposed ? action(step.proposed) : el("p", "soft", "Nothing.")),
      this.panel("The guard", verdict, ...(step.reasons.length ? [reasons] : [])),
      this.panel("Executed", done),
      this.panel(message ? "The person answered" : "It was answered", words(step.result) ? block(step.result) : el("p", "soft", "Nothing: the episode was over."),
        ...(step.executed && !step.ok ? [el("p", "problem", "The call failed.")] : [])),
      this.panel("Reward", el("p", "", el("b", step.reward < 0 ? "problem" : "", signed(step.reward)), el("span", "soft", ` · ${signed(step.total_reward)} so far`))),
    ];
    if (step.cut) found.push(el("p", "fine", `This step has ${step.bytes.toLocaleString("en")} bytes; parts of it are left out here.`));
    if (this.at === this.steps.length - 1 && Object.keys(this.criteria ?? {}).length) {
      const held = Object.entries(this.criteria).map(([one, is]) => el("li", `state ${is ? "state-ok" : "state-failed"}`, one.replaceAll("_", " ")));
      found.push(this.panel("At the end", el("ul", "criteria", ...held)));
    }
    return found;
  }

  /** @param {string} title @param {Node[]} inside */
  panel(title, ...inside) { return el("section", "panel", el("h3", "", title), el("div", "", ...inside)); }

  /** @param {any} observation */
  seen(observation) {
    const path = observation?.image;
    const files = this.getAttribute("files");
    if (typeof path !== "string" || !files) return words(observation) ? block(observation) : el("p", "soft", "Nothing new.");
    const image = el("img", "");
    image.alt = "What it saw";
    image.src = files + path.split("/").map(encodeURIComponent).join("/");
    return image;
  }

  /** All steps in a row, as a conversation. */
  talk() {
    this.part("talk").replaceChildren(...this.steps.map((step, place) => {
      const button = el("button", "quiet small", `Step ${place + 1}`);
      button.type = "button";
      button.dataset.step = String(place);
      const turn = el("article", "turn", button);
      if (place === 0) turn.append(el("div", "said person", el("b", "", "Request"), this.seen(step.observation)));
      turn.append(el("div", `said agent${step.ok || step.proposed?.type === "message" ? "" : " failed"}`, el("b", "", "Agent"), step.proposed ? action(step.proposed) : "–"));
      if (step.verdict !== "allow") turn.append(el("p", "fine", `${(VERDICTS[step.verdict] ?? ["", step.verdict])[1]}: ${step.reasons.join(" ")}`));
      if (words(step.result)) turn.append(el("div", "said person", el("b", "", step.proposed?.type === "message" ? "Person" : "Tool"), block(step.result)));
      return turn;
    }));
  }
}

customElements.define("episode-player", EpisodePlayer);
