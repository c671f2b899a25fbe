// Keeps the address of the page in step with the fields of <form data-address>, so that a link shows what one sees.

document.addEventListener("input", (event) => {
  const form = event.target.closest?.("form[data-address]");
  if (!form) return;
  const values = [...form.elements].filter((field) => field.name)
    .map((field) => [field.name, field.type === "checkbox" && !field.checked ? null : field.value]);
  replaceQuery(Object.fromEntries(values));
});

/** Writes parameters into the address of the page; null takes one out. @param {Record<string, any>} values */
export function replaceQuery(values) {
  const url = new URL(location.href);
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === "") url.searchParams.delete(name);
    else url.searchParams.set(name, value);
  }
  history.replaceState(history.state, "", url);
}
