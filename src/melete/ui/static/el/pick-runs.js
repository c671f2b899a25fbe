// <pick-runs>: keeps which runs of a list are chosen while the server renews the list, and leads to their comparison.

const MOST = 8;

class PickRuns extends HTMLElement {
  /** @type {Set<string>} */
  chosen = new Set();

  connectedCallback() {
    this.form = this.querySelector("[data-part=pick]");
    this.addEventListener("change", (event) => {
      const id = event.target.dataset?.pick;
      if (!id) return;
      if (event.target.checked) this.chosen.add(id);
      else this.chosen.delete(id);
      this.show();
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      location.assign(`/compare?runs=${[...this.chosen].join(",")}`);
    });
    new MutationObserver(() => this.mark()).observe(this.querySelector("[data-live]"), { childList: true, subtree: true });
    for (const box of this.querySelectorAll("[data-pick]:checked")) this.chosen.add(box.dataset.pick);
    this.show();
  }

  mark() {
    for (const box of this.querySelectorAll("[data-pick]")) box.checked = this.chosen.has(box.dataset.pick);
  }

  show() {
    const many = this.chosen.size;
    this.querySelector("[data-part=count]").textContent = many > MOST ? `${many} chosen; at most ${MOST} can be compared.`
      : many ? `${many} chosen.` : "Choose two to eight runs to compare them.";
    this.form.querySelector("button").disabled = many < 2 || many > MOST;
  }
}

customElements.define("pick-runs", PickRuns);
