// Nodes: made once for each key, and written to only where a value differs.

export const $ = (id) => document.getElementById(id);

export function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

export function setText(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

export function setPill(node, word, tone) {
  setText(node, word);
  setAttribute(node, "data-tone", tone);
}

export function button(label, className, action) {
  const node = make("button", `button ${className}`, label);
  node.type = "button";
  node.addEventListener("click", action);
  return node;
}

const shownBy = new WeakMap();

/** Make a parent's children those of `items`, in their order; what is there already is updated in place.
 *  `create(item)` returns {node, update(item), gone?()}. */
export function keyed(parent, items, keyOf, create) {
  const before = shownBy.get(parent) ?? new Map();
  const after = new Map(items.map((item) => [keyOf(item), item]));
  for (const [key, view] of before) {
    if (!after.has(key)) {
      view.gone?.();
      view.node.remove();
      before.delete(key);
    }
  }
  let place = parent.firstChild;
  for (const [key, item] of after) {
    const view = before.get(key) ?? create(item);
    view.update(item);
    if (view.node === place) place = place.nextSibling;
    else parent.insertBefore(view.node, place);
    after.set(key, view);
  }
  shownBy.set(parent, after);
}

export function pillOf(className = "pill") {
  return make("span", className);
}

/** Fill a list of facts with [title, text], but for those that there are not. */
export function facts(list, pairs) {
  const known = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  keyed(list, known, ([title]) => title, ([title]) => {
    const value = make("dd");
    const node = make("div", "pair-of-facts", make("dt", "", title), value);
    return { node, update: ([, text]) => setText(value, text) };
  });
}
