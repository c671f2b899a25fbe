// The card of a tool call: what was asked, what the guard said of it, what was executed, what came back.

import { asked } from "./tools.js";

const WORDS = { allow: "allowed", clamp: "clamped", refuse: "refused", ask: "needs a person", abort: "ended the conversation" };

/**
 * Fills a card.
 * @param {HTMLElement} card
 * @param {any} call of OpenAI's form
 * @param {import("./store.js").Node} node the message that it is of, with its verdict and results
 * @param {boolean} whole whether all of the call is there
 */
export function cardOf(card, call, node, whole) {
  const result = node.results?.[call.id];
  const failed = /^(error|refused):/i.test(result ?? "");
  const { verdict, reasons = [], rule, execute, confirmed } = node.verdict ?? {};
  const clamped = verdict === "clamp" && JSON.stringify(execute?.arguments ?? {});
  card.classList.toggle("failed", failed || ["refuse", "abort"].includes(verdict));
  card.querySelector(".name").textContent = call.function.name || "a call that cannot be read";
  card.querySelector(".asked").textContent = asked(call.function.arguments);
  card.querySelector(".asked").parentElement.hidden = !call.function.arguments;
  const badge = card.querySelector(".verdict");
  badge.hidden = !verdict;
  badge.className = `verdict verdict-${verdict}`;
  badge.textContent = verdict ? `${WORDS[verdict]}${confirmed ? ", confirmed" : ""}` : "";
  const unanswered = whole && !verdict ? "not answered" : "working …";
  card.querySelector(".progress").textContent = verdict ? "" : result === undefined ? unanswered : failed ? "failed" : "done";
  row(card, ".reasons", reasons.length ? `${reasons.join("\n")}${rule ? ` (${rule})` : ""}` : "");
  row(card, ".executed", clamped ? asked(clamped) : "");
  row(card, ".result", result && !(verdict === "refuse") ? result : "");
}

function row(card, part, text) {
  const place = card.querySelector(part);
  place.textContent = text;
  place.parentElement.hidden = !text;
}
