// Forms with data-keep="NAME" lose nothing: what is typed is kept in this tab until it was sent, over a reload, a restart
// of the server and a way back. Passwords and files are never kept.

const PREFIX = "melete.draft.";
const SKIPPED = ["password", "file", "submit", "button", "reset", "hidden"];

/** @param {HTMLFormElement} form */
const key = (form) => `${PREFIX}${location.pathname}#${form.dataset.keep}`;

/** Begins to keep the forms below a root. @param {ParentNode} root */
export function keep(root) {
  for (const form of root.querySelectorAll("form[data-keep]:not([data-keep-on])")) {
    form.setAttribute("data-keep-on", "");
    restore(form);
    form.addEventListener("input", () => save(form));
    form.addEventListener("change", () => save(form));
    form.addEventListener("reset", () => forget(form));
    form.addEventListener("htmx:after:request", (event) => {
      if (event.target === form && event.detail.ctx.response.status < 400) forget(form);
    });
  }
}

/** Drops what is kept of a form. @param {HTMLFormElement} form */
export function forget(form) { sessionStorage.removeItem(key(form)); }

/** @param {HTMLFormElement} form */
function save(form) {
  const values = fields(form).map((field) =>
    field.type === "checkbox" || field.type === "radio" ? field.checked : field.value);
  sessionStorage.setItem(key(form), JSON.stringify(Object.fromEntries(names(form).map((name, at) => [name, values[at]]))));
}

/** @param {HTMLFormElement} form */
function restore(form) {
  const kept = JSON.parse(sessionStorage.getItem(key(form)) ?? "{}");
  const named = names(form);
  fields(form).forEach((field, at) => {
    const value = kept[named[at]];
    if (value === undefined) return;
    const toggles = field.type === "checkbox" || field.type === "radio";
    if ((toggles ? field.checked : field.value) === value) return;
    if (toggles) field.checked = value;
    else field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  });
}

/** @param {HTMLFormElement} form @returns {(HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement)[]} */
function fields(form) {
  return [...form.elements].filter((field) => field.name && "value" in field && !SKIPPED.includes(field.type));
}

/** A name of its own for each field, so that equal ones stay apart. @param {HTMLFormElement} form */
function names(form) {
  const seen = {};
  return fields(form).map(({ name }) => `${name}#${(seen[name] = (seen[name] ?? 0) + 1)}`);
}
