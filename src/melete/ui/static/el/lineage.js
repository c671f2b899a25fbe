/** Scrolls a drawn lineage to the node that the page is about; all of it is readable without. */

for (const node of document.querySelectorAll(".lineage .here")) {
  const box = node.closest(".lineage");
  const [of, at] = [box.getBoundingClientRect(), node.getBoundingClientRect()];
  box.scrollLeft += at.left - of.left - (of.width - at.width) / 2;
  box.scrollTop += at.top - of.top - (of.height - at.height) / 2;
}
