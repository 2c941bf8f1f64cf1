// Measures a page in a frame: every text of its charts, and whether the page fits its width.
const box = (rect) => [rect.left, rect.top, rect.right, rect.bottom];
const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
const luminance = (colour) => {
  const [r, g, b] = channels(colour).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const drawn = (svg, view, paper) => [...svg.querySelectorAll("text")].map((text) => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width, style = view.getComputedStyle(text);
  return { text: text.textContent, box: box(text.getBoundingClientRect()), within: box(svg.getBoundingClientRect()),
    pixels: scale * parseFloat(style.fontSize), contrast: contrast(style.fill, paper) };
});
const written = (figure, view, paper) => {
  const found = [], walker = view.document.createTreeWalker(figure, view.NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, holder = node.parentElement, range = view.document.createRange();
    if (!node.textContent.trim() || node.parentElement.closest("svg")) continue;
    range.selectNodeContents(node);
    const style = view.getComputedStyle(holder);
    found.push({ text: node.textContent, box: box(range.getBoundingClientRect()),
      within: box((holder.closest(".scroll > *") ?? figure).getBoundingClientRect()),
      pixels: parseFloat(style.fontSize), contrast: contrast(style.color, paper) });
  }
  return found;
};
const measure = (view) => {
  const page = view.document.documentElement, paper = view.getComputedStyle(view.document.body).backgroundColor;
  for (const folded of page.querySelectorAll("details")) folded.open = true;
  return { width: view.innerWidth, scrolls: page.scrollWidth - page.clientWidth,
    charts: [...page.querySelectorAll("svg")].map((svg) => drawn(svg, view, paper)),
    figures: [...page.querySelectorAll("figure, .scroll")].map((figure) => written(figure, view, paper)) };
};
window.onload = () => {
  const views = [...document.querySelectorAll("iframe")].map((frame) => frame.contentWindow);
  document.getElementById("measured").textContent = JSON.stringify(views.map(measure));
};
