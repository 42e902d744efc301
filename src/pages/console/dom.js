// Makes elements. Whatever comes from the API gets into the page as text and never as HTML.

/**
 * An element with properties and children. `on…` are listeners, `aria-…`, `data-…` and other names with a dash are
 * attributes, `class` is the class; children that are null or false are left out.
 */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (key.includes("-") || ["for", "role", "list", "colspan", "scope", "lang"].includes(key)) made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Puts these children in place of what `parent` has. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

let counter = 0;

/** A label with its control under it. */
export function labelled(text, control) {
  control.id ||= `field-${(counter += 1)}`;
  return element("div", { class: "field" }, element("label", { for: control.id }, text), control);
}

/** A table: `columns` are `[heading, cell(row), class]`. On narrow screens each row stands as a card. */
export function table(caption, columns, rows, describeRow = () => ({})) {
  const head = element("tr", {}, columns.map(([heading]) => element("th", { scope: "col" }, heading)));
  const body = rows.map((row) =>
    element("tr", describeRow(row), columns.map(([heading, cell, kind]) => element("td", { "data-heading": heading, class: kind ? `of-${kind}` : null }, element("span", {}, cell(row))))),
  );
  return element(
    "div",
    { class: "table", role: "region", tabIndex: 0, "aria-label": caption },
    element("table", {}, element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, body)),
  );
}
