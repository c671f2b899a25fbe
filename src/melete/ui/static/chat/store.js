// Conversations and settings in this browser's localStorage; what cannot be read or kept is let go without a fuss.
//
// A conversation has one or two panes, a model each. The messages of a pane are a tree: editing and regenerating grow a
// branch, so nothing that was said is lost. A node is a message of OpenAI's form with the index of its parent.

const CONVERSATIONS = "melete.conversations";
const SETTINGS = "melete.settings";
const MOST = 100;
export const DEFAULTS = { system: "", temperature: 0.7, top_p: 1, max_tokens: "", seed: "", stop: "", calculator: true };

/**
 * @typedef {{role: string, content: string, parent: number, tool_calls?: any[], tool_call_id?: string, stats?: string,
 *   results?: Record<string, string>, verdict?: any, dropped?: number}} Node
 * @typedef {{model: string, nodes: Node[], leaf: number}} Pane
 * @typedef {{id: string, panes: Pane[]}} Conversation
 */

/** All conversations, the newest first. @returns {Conversation[]} */
export function conversations() {
  const kept = read(CONVERSATIONS, []);
  return Array.isArray(kept) ? kept.filter((one) => one?.id).map(current).filter((one) => Array.isArray(one.panes)) : [];
}

/** Keeps a conversation; the oldest go when there are too many or the browser has no room. @param {Conversation} conversation */
export function keep(conversation) {
  let all = [conversation, ...conversations().filter((one) => one.id !== conversation.id)].slice(0, MOST);
  while (all.length && !write(CONVERSATIONS, all)) all = all.slice(0, -1);
}

/** @param {string} id */
export function forget(id) {
  write(CONVERSATIONS, conversations().filter((one) => one.id !== id));
}

export const settings = () => ({ ...DEFAULTS, ...read(SETTINGS, {}) });
export const keepSettings = (values) => write(SETTINGS, values);

/** A new, empty conversation with models. @param {string[]} models @returns {Conversation} */
export function fresh(models) {
  const id = Array.from(crypto.getRandomValues(new Uint8Array(6)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { id, panes: models.map((model) => ({ model, nodes: [], leaf: -1 })) };
}

/** Its first words. @param {Conversation} conversation */
export const title = (conversation) => conversation.panes[0].nodes[0]?.content.slice(0, 80) || "Empty";

/** Adds a message after the last one of a pane. @param {Pane} pane @returns {Node} */
export function add(pane, message) {
  const node = { ...message, parent: pane.leaf };
  pane.leaf = pane.nodes.push(node) - 1;
  return node;
}

/** The messages of a pane that are shown, the oldest first. @param {Pane} pane @returns {Node[]} */
export function path(pane) {
  const found = [];
  for (let at = pane.leaf; at >= 0; at = pane.nodes[at].parent) found.push(pane.nodes[at]);
  return found.reverse();
}

/** The alternatives of a message, itself among them. @param {Pane} pane @param {Node} node */
export const siblings = (pane, node) => pane.nodes.filter((one) => one.parent === node.parent && one.role === node.role);

/** Shows the newest branch that goes through a message. @param {Pane} pane @param {Node} node */
export function choose(pane, node) {
  let at = pane.nodes.indexOf(node);
  for (let next = at; next >= 0; next = pane.nodes.findLastIndex((one) => one.parent === at)) at = next;
  pane.leaf = at;
}

/** The last message of a person at or before a message. @param {Pane} pane @param {Node} node */
export function asking(pane, node) {
  let found = node;
  while (found.role !== "user" && found.parent >= 0) found = pane.nodes[found.parent];
  return found;
}

/** Takes away a message that came to nothing. @param {Pane} pane @param {Node} node */
export function drop(pane, node) {
  if (pane.nodes.at(-1) === node) {
    pane.nodes.pop();
    pane.leaf = node.parent;
  }
}

/** Messages as OpenAI's API takes them. @param {Node[]} nodes */
export const plain = (nodes) => nodes.map(({ role, content, tool_calls, tool_call_id }) => ({
  role, content, ...(tool_calls && { tool_calls }), ...(tool_call_id && { tool_call_id }),
}));

/** A conversation of before there were two panes. */
function current(one) {
  if (one.panes || !Array.isArray(one.messages)) return one;
  const nodes = one.messages.map((message, at) => ({ ...message, parent: at - 1 }));
  return { id: one.id, panes: [{ model: one.model, nodes, leaf: nodes.length - 1 }] };
}

function read(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
