// <image-grid>: pictures that the page lists as <figure>s with a button each; one opens over the whole screen.
//
// Left and right lead through them, Home and End to the ends, Escape closes. Captions are text of the page.

class ImageGrid extends HTMLElement {
  connectedCallback() {
    this.viewer = this.querySelector("dialog");
    this.addEventListener("click", (event) => {
      const figure = event.target.closest("figure");
      if (figure && event.target.closest("button")) this.open(this.figures().indexOf(figure));
      const step = event.target.closest("[data-image]")?.dataset.image;
      if (step === "close") this.viewer.close();
      else if (step) this.show(this.at + Number(step));
    });
    this.viewer.addEventListener("keydown", (event) => {
      const last = this.figures().length - 1;
      const to = { ArrowLeft: this.at - 1, ArrowRight: this.at + 1, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.show(to);
    });
    this.viewer.addEventListener("close", () => this.figures()[this.at]?.querySelector("button").focus());
  }

  figures() { return [...this.querySelectorAll("figure:not(dialog figure)")]; }

  open(place) {
    this.show(place);
    this.viewer.showModal();
  }

  show(place) {
    const figures = this.figures();
    this.at = Math.min(figures.length - 1, Math.max(0, place));
    const figure = figures[this.at], shown = this.viewer.querySelector("img");
    shown.src = figure.querySelector("button").dataset.full;
    shown.alt = figure.querySelector("img").alt;
    this.viewer.querySelector("figcaption").textContent =
      `${this.at + 1} of ${figures.length} · ${figure.querySelector("figcaption").textContent.trim()}`;
  }
}

customElements.define("image-grid", ImageGrid);
