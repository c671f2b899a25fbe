// One WebSocket a page: topics are GET paths of this server, and what they answer arrives as it changes.
//
//   const stop = live({"/api/v1/status": (status) => …});
//
// An element with data-live="/parts/…" gets that fragment morphed into it by itself. `<html data-conn>` says "live" or
// "lost". The connection comes back by itself, with pauses that grow to ten seconds, and asks for its topics again; a
// page that goes into the back-forward cache lets it go, and takes it up again when it is shown.

import { signedIn } from "./ask.js";

/** @type {Map<string, Set<(payload: any) => void>>} */
const handlers = new Map();
/** @type {WebSocket | null} */
let socket = null;
let failures = 0;
let timer = 0;
let noteTimer = 0;
let asleep = false;
let declined = false;

/**
 * Listens to topics.
 * @param {Record<string, (payload: any) => void>} wanted topic to what is called with each payload, which is
 *   `{error: …}` where the topic cannot be read
 * @returns {() => void} stops listening
 */
export function live(wanted) {
  const fresh = [];
  for (const [topic, handler] of Object.entries(wanted)) {
    if (!handlers.has(topic)) handlers.set(topic, new Set());
    handlers.get(topic).add(handler);
    fresh.push(topic);
  }
  if (socket?.readyState === WebSocket.OPEN) send({ subscribe: fresh });
  else connect();
  return () => {
    const gone = [];
    for (const [topic, handler] of Object.entries(wanted)) {
      const set = handlers.get(topic);
      set?.delete(handler);
      if (set && !set.size) { handlers.delete(topic); gone.push(topic); }
    }
    if (gone.length && socket?.readyState === WebSocket.OPEN) send({ unsubscribe: gone });
  };
}

function connect() {
  if (asleep || (socket && socket.readyState <= WebSocket.OPEN)) return;
  clearTimeout(timer);
  const url = new URL("/api/v1/live", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const made = socket = new WebSocket(url);
  made.onopen = () => {
    failures = 0;
    mark("live");
    if (handlers.size) send({ subscribe: [...handlers.keys()] });
  };
  made.onmessage = (event) => {
    const [topic, payload] = JSON.parse(event.data);
    for (const handler of handlers.get(topic) ?? []) handler(payload);
  };
  made.onclose = () => {
    if (made !== socket || asleep) return;
    mark("lost");
    const pause = Math.min(500 * 2 ** failures++, 10_000);
    timer = setTimeout(again, pause * (0.7 + 0.6 * Math.random()));
  };
}

/** Connects again; a cookie that has run out is refused without a reason, so the page asks for one. */
async function again() {
  if (failures > 1 && !declined) {
    const answer = await signedIn("/api/v1/", { headers: { accept: "application/json" } }).catch(() => null);
    declined = answer?.status === 401;
  }
  connect();
}

/** @param {object} message */
function send(message) { socket.send(JSON.stringify(message)); }

/** @param {"live" | "lost"} state */
function mark(state) {
  document.documentElement.dataset.conn = state;
  clearTimeout(noteTimer);
  const note = document.querySelector("[data-part=conn]");
  if (!note) return;
  // A short break is nobody's business.
  if (state === "live") note.hidden = true;
  else noteTimer = setTimeout(() => { note.hidden = false; }, 1_000);
}

addEventListener("pagehide", () => {
  asleep = true;
  clearTimeout(timer);
  socket?.close();
  socket = null;
});
addEventListener("pageshow", (event) => {
  asleep = false;
  if (event.persisted) connect();
});
addEventListener("online", connect);

/** Keeps every element with `data-live` below a root fresh. @param {ParentNode} root */
export function fragments(root) {
  for (const element of root.querySelectorAll("[data-live]:not([data-live-on])")) {
    element.setAttribute("data-live-on", "");
    const topic = element.dataset.live;
    const stop = live({
      [topic]: (payload) => {
        if (!element.isConnected || element.dataset.live !== topic) return stop();
        const html = payload?.error ? payload.error.html : payload;
        // What cannot be read any more stays as it was last seen, and says so.
        if (typeof html !== "string") element.dataset.problem = html.error?.message ?? "";
        else {
          delete element.dataset.problem;
          htmx.swap({ target: element, text: html, swap: "innerMorph" });
        }
      },
    });
  }
}
