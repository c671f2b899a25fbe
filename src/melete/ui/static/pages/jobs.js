// Pages of jobs: says when a job's state has changed, filters as soon as one chooses, opens the dialog that was asked for.

import { toast } from "../shell.js";

new MutationObserver((changes) => {
  for (const { target, oldValue } of changes) {
    const { name, state } = target.dataset;
    if (state && oldValue && state !== oldValue) toast(`${name}: ${state}`, state === "failed");
  }
}).observe(document.querySelector("main"), { attributeFilter: ["data-state"], attributeOldValue: true, subtree: true });

document.addEventListener("change", ({ target }) => {
  if (target.matches("[data-submit]")) target.form.requestSubmit();
});
document.addEventListener("htmx:after:swap", () => {
  const dialog = document.querySelector("#change");
  if (dialog?.childElementCount && !dialog.open) dialog.showModal();
});
