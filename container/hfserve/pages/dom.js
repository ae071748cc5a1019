/** Makes elements without markup in strings: what a model or a user says can never become a tag. */

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("button", {type: "button", onclick: run}, "Run")`. Attributes that are false or null are left out. */
export function h(tag, attributes = {}, ...children) {
  return furnished(document.createElement(tag), attributes, children);
}

/** The same for drawings. */
export function svg(tag, attributes = {}, ...children) {
  return furnished(document.createElementNS(SVG, tag), attributes, children);
}

function furnished(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

let last = 0;

/** An id that no other element has. */
export function newId() {
  last += 1;
  return `id${last}`;
}

/** Tabs that are chosen by click, arrow keys, Home and End. `pages` are [name, node] or [name, () => node]. */
export function tabs(label, pages, { chosen = 0, onchange = () => {} } = {}) {
  const id = newId();
  const panel = h("div", { role: "tabpanel", id: `${id}-panel`, tabindex: 0, class: "tabpanel" });
  const buttons = pages.map(([name], i) =>
    h("button", {
      type: "button", role: "tab", id: `${id}-${i}`, "aria-controls": panel.id, onclick: () => choose(i),
    }, name));
  const list = h("div", { role: "tablist", "aria-label": label, class: "tabs", onkeydown: move }, buttons);

  function choose(i) {
    buttons.forEach((button, j) => {
      button.setAttribute("aria-selected", i === j);
      button.tabIndex = i === j ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", buttons[i].id);
    const [, page] = pages[i];
    panel.replaceChildren(typeof page === "function" ? page() : page);
    onchange(i);
  }

  function move(event) {
    const now = buttons.indexOf(document.activeElement);
    const to = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = (to + buttons.length) % buttons.length;
    choose(next);
    buttons[next].focus();
  }

  choose(chosen);
  return h("div", { class: "tabbed" }, list, panel);
}

/** A button that copies what `text()` gives, and says so. */
export function copyButton(text) {
  const button = h("button", { type: "button", class: "quiet copy" }, "Copy");
  button.addEventListener("click", async () => {
    const copied = await copy(text());
    button.textContent = copied ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

/** A page that came without TLS has no clipboard; there the old way has to do. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const area = h("textarea", { class: "unseen", readonly: true });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}
