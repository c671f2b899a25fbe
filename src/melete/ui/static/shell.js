// What every page does: theme, menu, live fragments, ages that grow, buttons that copy, notes that appear and go.

import { fragments } from "./live.js";

const root = document.documentElement;
const actions = {
  theme() {
    const dark = getComputedStyle(root).colorScheme === "dark" || (root.dataset.theme ?? "") === "dark"
      || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("melete.theme", root.dataset.theme);
    root.dispatchEvent(new CustomEvent("theme"));
  },
  menu(button) {
    const open = button.closest(".side").classList.toggle("open");
    button.setAttribute("aria-expanded", String(open));
  },
};

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

/** Shows a note for some seconds. @param {string} text @param {boolean} [bad] */
export function toast(text, bad = false) {
  const note = document.createElement("p");
  note.className = bad ? "toast bad" : "toast";
  note.textContent = text;
  document.querySelector("[data-part=toasts]").append(note);
  setTimeout(() => note.remove(), bad ? 12_000 : 3_000);
}

fragments(document);
