// <mark-down>text</mark-down> shows its text as Markdown. The text may be hostile: marked makes HTML of it, DOMPurify
// keeps a few elements that can neither run nor load anything, and HTML in the text is shown as it was written.
//
// `element.text = "…"` shows another text, at most every 50 ms, for what is still being written: its blocks but the last
// are kept as they are, so a long answer costs no more than its last block. Without the libraries of static/vendor the
// plain text stays.

const KEEP = {
  ALLOWED_TAGS: ["p", "br", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3",
    "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "hr", "a"],
  ALLOWED_ATTR: ["href", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|\/(?!\/)|#)/i,
  RETURN_DOM_FRAGMENT: true,
};
const PAUSE_MS = 50;
/** @type {Promise<{marked: any, show: (tokens: any[]) => DocumentFragment}> | undefined} */
let loading;

async function load() {
  const [{ Marked }, { default: purify }] = await Promise.all([
    import("../vendor/marked.js"), import("../vendor/purify.js"),
  ]);
  const html = ({ text }) => text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
  const marked = new Marked({ renderer: { html }, gfm: true, breaks: true, async: false });
  return { marked, show: (tokens) => ready(purify.sanitize(marked.parser(tokens), KEEP)) };
}

/** @param {DocumentFragment} nodes */
function ready(nodes) {
  for (const link of nodes.querySelectorAll("a")) {
    if (link.getAttribute("href")?.match(/^[/#]/)) continue;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const block of nodes.querySelectorAll("pre, table")) block.tabIndex = 0;
  return nodes;
}

class MarkDown extends HTMLElement {
  #text = "";
  #shown = "";
  #kept = "";
  /** @type {ChildNode[]} */
  #growing = [];
  #timer = 0;

  connectedCallback() {
    if (!this.#text) this.text = this.textContent.trim();
  }

  /** @returns {string} */
  get text() { return this.#text; }

  /** @param {string} value */
  set text(value) {
    this.#text = value;
    if (this.#timer) return;
    this.#show();
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      if (this.#shown !== this.#text) this.#show();
    }, PAUSE_MS);
  }

  /** Shows at once what is still to be shown: nothing more will come. */
  finish() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (this.#shown !== this.#text) this.#show();
  }

  async #show() {
    const tools = await (loading ??= load()).catch(() => null);
    const text = this.#shown = this.#text;
    this.classList.toggle("raw", !tools);
    if (!tools) return this.replaceChildren(text);
    if (!this.#kept || !text.startsWith(this.#kept)) {
      this.#kept = "";
      this.replaceChildren();
    }
    for (const node of this.#growing) node.remove();
    const tokens = tools.marked.lexer(text.slice(this.#kept.length));
    const last = tokens.findLastIndex((token) => token.type !== "space");
    const done = tokens.slice(0, Math.max(last, 0));
    this.append(tools.show(done));
    this.#kept += done.map((token) => token.raw).join("");
    const rest = tools.show(tokens.slice(done.length));
    this.#growing = [...rest.childNodes];
    this.append(rest);
  }
}

customElements.define("mark-down", MarkDown);
