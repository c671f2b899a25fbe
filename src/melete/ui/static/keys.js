// Keyboard shortcuts: whatever has data-key="n" or data-key="g r" is clicked by that key, or by those two in a row; "/"
// goes to the search of the page, "?" lists all keys, Ctrl K opens the palette, Esc closes. None works while typing.

const PAUSE_MS = 1_200;

/** @param {Record<string, (element?: HTMLElement) => void>} actions of the shell */
export function listen(actions) {
  let first = "";
  let timer = 0;
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k" && !event.altKey) {
      event.preventDefault();
      actions.palette();
      return;
    }
    if (event.key === "Escape") leave(event);
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector("dialog[open]")) return;
    const pressed = first ? `${first} ${event.key}` : event.key;
    first = "";
    clearTimeout(timer);
    if (pressed === "?") { list(); actions.keys(); }
    else if (pressed === "/") search(event);
    else if (!press(pressed, event) && document.querySelector(`[data-key^="${CSS.escape(pressed)} "]`)) {
      first = pressed;
      timer = setTimeout(() => { first = ""; }, PAUSE_MS);
    }
  });
}

/** @param {EventTarget} target */
function typing(target) {
  return target instanceof HTMLElement && (target.isContentEditable || target.matches("input:not([type=checkbox], [type=radio], [type=button]), textarea, select"));
}

/** @param {KeyboardEvent} event */
function search(event) {
  const box = document.querySelector("[data-search], main input[type=search]");
  if (!box) return;
  event.preventDefault();
  box.focus();
  box.select?.();
}

/** @param {string} pressed @param {KeyboardEvent} event */
function press(pressed, event) {
  const element = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === pressed && !one.disabled);
  if (!element) return false;
  event.preventDefault();
  element.click();
  return true;
}

/** @param {KeyboardEvent} event */
function leave(event) {
  if (typing(event.target) && !document.querySelector("dialog[open]")) event.target.blur();
  document.querySelector(".side.open [data-do=menu]")?.click();
}

/** Fills the dialog with the keys of this page. */
function list() {
  const rows = [["Ctrl K", "Search and commands"], ["/", "To the search of this page"], ["?", "These keys"], ["Esc", "Close, or leave a field"]];
  const seen = new Set();
  for (const element of document.querySelectorAll("[data-key]")) {
    const name = (element.getAttribute("aria-label") ?? element.textContent).trim();
    if (!seen.has(element.dataset.key)) rows.push([element.dataset.key, name]);
    seen.add(element.dataset.key);
  }
  const body = document.querySelector("[data-part=keys] dl");
  body.replaceChildren(...rows.map(([keys, name]) => {
    const row = document.createElement("div");
    const term = document.createElement("dt");
    term.append(...keys.split(" ").map((key) => Object.assign(document.createElement("kbd"), { textContent: key })));
    row.append(term, Object.assign(document.createElement("dd"), { textContent: name }));
    return row;
  }));
}
