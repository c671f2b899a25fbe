// One WebSocket a page: topics are GET paths of this server, and what they answer arrives as it changes.
//
//   const stop = live({"/api/v1/status": (status) => …});
//
// An element with data-live="/parts/…" gets that fragment morphed into it by itself. `<html data-conn>` says "live" or
// "lost". The connection comes back by itself, with pauses that grow to ten seconds, and asks for its topics again.

/** @type {Map<string, Set<(payload: any) => void>>} */
const handlers = new Map();
/** @type {WebSocket | null} */
let socket = null;
let pause = 500;
let timer = 0;

/**
 * Listens to topics.
 * @param {Record<string, (payload: any) => void>} wanted topic to what is called with each payload
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
  if (socket && socket.readyState <= WebSocket.OPEN) return;
  clearTimeout(timer);
  const url = new URL("/api/v1/live", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  socket.onopen = () => {
    pause = 500;
    mark("live");
    if (handlers.size) send({ subscribe: [...handlers.keys()] });
  };
  socket.onmessage = (event) => {
    const [topic, payload] = JSON.parse(event.data);
    for (const handler of handlers.get(topic) ?? []) handler(payload);
  };
  socket.onclose = () => {
    mark("lost");
    timer = setTimeout(connect, pause * (0.7 + 0.6 * Math.random()));
    pause = Math.min(pause * 2, 10_000);
  };
}

/** @param {object} message */
function send(message) { socket.send(JSON.stringify(message)); }

/** @param {"live" | "lost"} state */
function mark(state) {
  document.documentElement.dataset.conn = state;
  const note = document.querySelector("[data-part=conn]");
  if (note) note.hidden = state === "live";
}

/** Keeps every element with `data-live` below a root fresh. @param {ParentNode} root */
export function fragments(root) {
  for (const element of root.querySelectorAll("[data-live]:not([data-live-on])")) {
    element.setAttribute("data-live-on", "");
    const stop = live({
      [element.dataset.live]: (html) => {
        if (!element.isConnected) return stop();
        if (typeof html === "string") htmx.swap({ target: element, text: html, swap: "innerMorph" });
      },
    });
  }
}
