// Keeps the address of the page in step with the fields of <form data-address>, so that a link shows what one sees.

import { replaceQuery } from "./view.js";

document.addEventListener("input", (event) => {
  const form = event.target.closest?.("form[data-address]");
  if (!form) return;
  const values = [...form.elements].filter((field) => field.name)
    .map((field) => [field.name, field.type === "checkbox" && !field.checked ? null : field.value]);
  replaceQuery(Object.fromEntries(values));
});
