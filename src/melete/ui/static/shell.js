// What every page does: theme, menu, live fragments, ages that grow, buttons that copy or ask first, notes that come and
// go, and what htmx does when the server refuses.

import { signedIn } from "./ask.js";
import { keep } from "./drafts.js";
import { listen } from "./keys.js";
import { fragments } from "./live.js";

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const part = (name) => document.querySelector(`[data-part=${name}]`);

export const actions = {
  theme() { setTheme(root.dataset.theme ? (root.dataset.theme === "dark" ? "light" : "dark") : dark.matches ? "light" : "dark"); },
  light() { setTheme("light"); },
  dark() { setTheme("dark"); },
  system() { setTheme(null); },
  /** @param {HTMLElement} button */
  menu(button) {
    const open = button.closest(".side").classList.toggle("open");
    button.setAttribute("aria-expanded", String(open));
  },
  async palette() {
    const dialog = part("palette");
    if (dialog.open) return dialog.close();
    dialog.querySelector("input").value = "";
    dialog.showModal();
    // What is typed while the script comes is searched then.
    const palette = await import("./palette.js").catch(() => null);
    if (palette) palette.search();
    else dialog.querySelector("[role=listbox]").textContent = "The server cannot be reached.";
  },
  keys() { part("keys").showModal(); },
  /** @param {HTMLElement} button */
  close(button) { button.closest("dialog").close(); },
};

/** @param {"light" | "dark" | null} theme null follows the system */
function setTheme(theme) {
  if (theme) root.dataset.theme = theme;
  else delete root.dataset.theme;
  if (theme) localStorage.setItem("melete.theme", theme);
  else localStorage.removeItem("melete.theme");
  root.dispatchEvent(new CustomEvent("theme"));
}

/** Shows a note for some seconds. @param {string} text @param {boolean} [bad] */
export function toast(text, bad = false) {
  const note = document.createElement("p");
  note.className = bad ? "toast bad" : "toast";
  note.textContent = text;
  part("toasts").append(note);
  setTimeout(() => note.remove(), bad ? 12_000 : 3_000);
}

/** Asks before something that cannot be undone. @param {string} question @param {string} [yes] @returns {Promise<boolean>} */
export function confirmed(question, yes = "Yes") {
  /** @type {HTMLDialogElement} */
  const dialog = part("confirm");
  dialog.querySelector("p").textContent = question;
  dialog.querySelector("[value=yes]").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** @type {WeakSet<Element>} */
const agreed = new WeakSet();
document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-confirm]");
  if (!button || agreed.delete(button)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (!(await confirmed(button.dataset.confirm, button.dataset.yes ?? button.textContent.trim()))) return;
  // A live part may have replaced the button meanwhile; one with an id is found again.
  const there = button.isConnected ? button : document.getElementById(button.id);
  if (!there) return;
  agreed.add(there);
  there.click();
}, { capture: true });

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-do], [data-copy]");
  if (!button) return;
  if (button.dataset.copy !== undefined) {
    await navigator.clipboard.writeText(button.dataset.copy);
    toast("Copied.");
  } else {
    actions[button.dataset.do]?.(button);
  }
});

document.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
  ctx.fetch = (url, request) => signedIn(url, request, () => clearTimeout(ctx.requestTimeout));
});
document.addEventListener("htmx:response:error", ({ detail: { ctx } }) => {
  const status = String(ctx.response.status);
  const shown = [status, `${status.slice(0, 2)}x`, `${status[0]}xx`];
  if (shown.some((code) => ctx.sourceElement.hasAttribute(`hx-status:${code}`))) return;
  toast(message(ctx.text) ?? `The server answered ${status}.`, true);
});
document.addEventListener("htmx:error", ({ detail: { ctx } }) => {
  if (ctx) toast("The server cannot be reached. Is it running?", true);
});
document.addEventListener("htmx:after:swap", () => { fragments(document); keep(document); });
// A route says `HX-Trigger: {"toast": "Saved."}`.
document.addEventListener("toast", ({ detail }) => toast(detail.value));

/** The message of an error, as JSON of the API or as a fragment of a page. @param {string} text */
function message(text) {
  try {
    return JSON.parse(text).error.message;
  } catch {
    return new DOMParser().parseFromString(text, "text/html").querySelector("[role=alert]")?.textContent.trim();
  }
}

/** How long ago, as `render.ago` of the server says it. @param {number} seconds */
function ago(seconds) {
  const s = Math.max(0, seconds);
  const [unit, name] = s < 60 ? [1, "s"] : s < 3_600 ? [60, "min"] : s < 86_400 ? [3_600, "h"] : [86_400, "d"];
  return `${Math.floor(s / unit)} ${name}`;
}

// A clock that is wrong by more than a slow load shows ages by the server's.
const ahead_s = Number(root.dataset.now) - Date.now() / 1000;
function grow() {
  if (document.hidden) return;
  const now_s = Date.now() / 1000 + (Math.abs(ahead_s) > 30 ? ahead_s : 0);
  for (const time of document.querySelectorAll("time[data-time]")) {
    const said = ago(now_s - Number(time.dataset.time));
    if (time.textContent !== said) time.textContent = said;
  }
}
document.addEventListener("pointerover", ({ target }) => {
  const time = target.closest?.("time[data-time]");
  if (time) time.title = new Date(Number(time.dataset.time) * 1000).toLocaleString();
});

dark.addEventListener("change", () => root.dispatchEvent(new CustomEvent("theme")));
setInterval(grow, 1_000);
listen(actions);
keep(document);
fragments(document);
