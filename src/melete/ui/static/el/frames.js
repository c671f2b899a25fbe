// <frame-player>: the frames of an episode, one after the other, with a slider and a button that plays them.
//
// Each frame is asked for when it is shown, the next one ahead; the browser keeps them. Ten a second at most.

const PAUSE_MS = 100;

class FramePlayer extends HTMLElement {
  connectedCallback() {
    [this.image, this.slider, this.told, this.button] = ["img", "input", "output", "button"].map((one) => this.querySelector(one));
    this.ahead = new Image();
    this.slider.addEventListener("input", () => this.show());
    this.button.addEventListener("click", () => (this.timer ? this.pause() : this.play()));
    this.show();
  }

  disconnectedCallback() { this.pause(); }

  path(step) { return this.dataset.path + (Number(this.dataset.first) + step); }

  show() {
    const step = Number(this.slider.value), last = Number(this.slider.max);
    this.image.src = this.path(step);
    this.image.alt = `Frame ${step}`;
    this.told.textContent = String(step);
    if (step < last) this.ahead.src = this.path(step + 1);
    return step < last;
  }

  play() {
    if (this.slider.value === this.slider.max) this.slider.value = "0";
    this.button.setAttribute("aria-pressed", "true");
    const next = () => {
      this.slider.value = String(Number(this.slider.value) + 1);
      if (!this.show()) this.pause();
      else this.image.onload = () => { this.timer = setTimeout(next, PAUSE_MS); };
    };
    this.timer = setTimeout(next, PAUSE_MS);
  }

  pause() {
    clearTimeout(this.timer);
    this.image.onload = null;
    this.timer = undefined;
    this.button.setAttribute("aria-pressed", "false");
  }
}

customElements.define("frame-player", FramePlayer);
