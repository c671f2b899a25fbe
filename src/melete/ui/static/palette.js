// The command palette: pages, commands and things of the lab by name. The server searches (/parts/palette?q=…) and says
// what there is as links; arrows move, Enter goes. Follows the ARIA pattern of a combobox with a list.

import { signedIn } from "./ask.js";
import { actions } from "./shell.js";

const PAUSE_MS = 90;
/** @type {HTMLDialogElement} */
const dialog = document.querySelector("[data-part=palette]");
const box = dialog.querySelector("input");
const list = dialog.querySelector("[role=listbox]");
let timer = 0;
let asked = 0;
/** What is being searched, so that Enter takes what was meant and not what was there before. */
let pending = Promise.resolve();

/** Searches for what stands in the box. @returns {Promise<void>} done when it is shown */
export function search() {
  clearTimeout(timer);
  timer = 0;
  return (pending = show(++asked));
}

/** @param {number} number of this search; a newer one makes it void */
async function show(number) {
  const answer = await signedIn(`/parts/palette?q=${encodeURIComponent(box.value)}`).catch(() => null);
  const html = answer?.ok ? await answer.text() : '<p class="soft">The server cannot be reached.</p>';
  if (number !== asked) return;
  await htmx.swap({ target: list, text: html, swap: "innerHTML" });
  choose(options()[0]);
}

/** @returns {HTMLElement[]} */
const options = () => [...list.querySelectorAll("[role=option]")];

/** @param {HTMLElement | undefined} option */
function choose(option) {
  for (const one of options()) one.setAttribute("aria-selected", String(one === option));
  box.setAttribute("aria-activedescendant", option?.id ?? "");
  option?.scrollIntoView({ block: "nearest" });
}

/** @param {HTMLElement | undefined} option @param {boolean} [apart] in a tab of its own */
function go(option, apart = false) {
  if (!option) return;
  dialog.close();
  const { href, action } = option.dataset;
  if (action) actions[action]();
  else if (apart) window.open(href, "_blank", "noopener");
  else location.assign(href);
}

box.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, PAUSE_MS);
});
box.addEventListener("keydown", async (event) => {
  const all = options();
  const at = all.findIndex((one) => one.ariaSelected === "true");
  const to = { ArrowDown: at + 1, ArrowUp: at - 1 + all.length, PageDown: Math.min(at + 8, all.length - 1), PageUp: Math.max(at - 8, 0) }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    choose(all[to % (all.length || 1)]);
  } else if (event.key === "Enter") {
    event.preventDefault();
    await (timer ? search() : pending);
    go(options().find((one) => one.ariaSelected === "true"), event.ctrlKey || event.metaKey);
  }
});
list.addEventListener("mousedown", (event) => event.preventDefault());
list.addEventListener("click", (event) => go(event.target.closest("[role=option]"), event.ctrlKey || event.metaKey));
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
