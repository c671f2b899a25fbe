// Conversations and settings in this browser's localStorage; what cannot be read or kept is let go without a fuss.

const CONVERSATIONS = "melete.conversations";
const SETTINGS = "melete.settings";
const MOST = 100;
export const DEFAULTS = { system: "", temperature: 0.7, top_p: 1, max_tokens: "", seed: "", calculator: true };

/** All conversations, the newest first. */
export function conversations() {
  const kept = read(CONVERSATIONS, []);
  return Array.isArray(kept) ? kept.filter((one) => one?.id && Array.isArray(one.messages)) : [];
}

/** Keeps a conversation; the oldest go when there are too many or the browser has no room. */
export function keep(conversation) {
  let all = [conversation, ...conversations().filter((one) => one.id !== conversation.id)].slice(0, MOST);
  while (all.length && !write(CONVERSATIONS, all)) all = all.slice(0, -1);
}

export function forget(id) {
  write(CONVERSATIONS, conversations().filter((one) => one.id !== id));
}

export const settings = () => ({ ...DEFAULTS, ...read(SETTINGS, {}) });
export const keepSettings = (values) => write(SETTINGS, values);

/** A new, empty conversation. */
export function fresh(model) {
  const id = Array.from(crypto.getRandomValues(new Uint8Array(6)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { id, model, messages: [] };
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
