// A conversation with a deployed agent: it proposes, its guard judges, and the person here executes.
//
// The server keeps the conversation; a pane keeps the session's id and the last message that the server knows (`told`).
// Where the server has forgotten it, or another branch is shown, the conversation is told anew, and judged anew.

import { act } from "./api.js";
import { path, plain } from "./store.js";

const LOST = ["session_not_found", "version_gone", "out_of_turn"];

/** The agent's next action. @param {import("./store.js").Pane} pane @param {AbortSignal} signal */
export async function next(pane, signal) {
  const nodes = path(pane);
  const known = nodes.indexOf(pane.nodes[pane.session?.told]);
  const fresh = nodes.slice(known + 1);
  if (known >= 0 && fresh.length <= 1) {
    const said = fresh[0] && { observation: fresh[0].content, ok: fresh[0].ok !== false };
    try {
      return await send(pane, { session_id: pane.session.id, ...said }, signal);
    } catch (error) {
      if (!LOST.includes(error.error?.code)) throw error;
    }
  }
  return send(pane, { messages: plain(nodes) }, signal);
}

/** Says whether a person agrees with what the guard asks about; the same action, or the next one where they do not. */
export const confirm = (pane, yes, signal) => send(pane, { session_id: pane.session?.id ?? "", confirm: yes }, signal);

async function send(pane, body, signal) {
  const reply = await act(pane.model, body, signal);
  pane.session = { id: reply.session_id, told: pane.session?.told ?? -1 };
  return reply;
}

/** What the guard said of an action, as it is kept with the message. */
export const verdict = ({ verdict, reasons, rule, execute, over }) => ({ verdict, reasons, rule, execute, over });

/** An action as a message of OpenAI's form. */
export function message({ action, session_id, step, ...reply }) {
  const kept = { role: "assistant", content: "", verdict: verdict(reply) };
  if (action.type === "message") return { ...kept, content: reply.execute ? action.text : "", withheld: !reply.execute };
  const called = { name: action.name ?? "", arguments: action.name ? JSON.stringify(action.arguments ?? {}) : action.text ?? "" };
  return { ...kept, tool_calls: [{ id: `call_${session_id}_${step}`, type: "function", function: called }] };
}

/** What is due after an action: `result`, `confirm`, `agent` (it goes on), or nothing. @param {import("./store.js").Node} node */
export function due(node) {
  const { verdict, execute } = node.verdict ?? {};
  if (!node.tool_calls || node.results) return "";
  if (verdict === "ask") return "confirm";
  if (execute) return "result";
  return verdict === "refuse" ? "agent" : "";
}
