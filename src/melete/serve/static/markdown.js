// Markdown to safe HTML with marked and DOMPurify; without their files the text is shown as it is.

const libraries = Promise.all([import("./vendor/marked.js"), import("./vendor/purify.js")]).catch(() => null);
const KEEP = {
  ALLOWED_TAGS: ["p", "br", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5",
    "h6", "table", "thead", "tbody", "tr", "th", "td", "hr", "a"],
  ALLOWED_ATTR: ["href", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
};

let tools = null;
export const ready = libraries.then((loaded) => {
  const purify = loaded && (loaded[1].default ?? globalThis.DOMPurify);
  if (!purify) return;
  // HTML in an answer is shown as the model wrote it.
  const html = ({ text }) => text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
  tools = { marked: new loaded[0].Marked({ renderer: { html }, gfm: true, breaks: true, async: false }), purify };
});

/** Puts `text` into `element`, as Markdown where that is possible. */
export function show(element, text) {
  element.classList.toggle("raw", !tools);
  if (!tools) {
    element.textContent = text;
    return;
  }
  const html = tools.marked.parse(text);
  element.innerHTML = tools.purify.sanitize(html, KEEP);
  for (const link of element.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const block of element.querySelectorAll("pre, table")) block.tabIndex = 0;
}
