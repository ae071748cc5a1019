/** Editors made from a schema. Each has a `node`, `read()` (undefined: nothing given) and `write(value)`. */

import { h, newId } from "./dom.js";
import { mediaField } from "./media.js";
import { bare, bounds, guessed, isObject, mediumOf, pretty, spoken } from "./schema.js";

/** What a field holds cannot be sent; `field` is where the cursor should go. */
export class Unfit extends Error {
  constructor(message, field) {
    super(message);
    this.field = field;
  }
}

/** An editor for the values of a schema, which begins with a value. */
export function editor(schemas, schema, value, label) {
  const known = Object.keys(schema).length ? schema : guessed(value ?? "");
  const choices = distinct(schemas, schemas.choices(known));
  const field = choices.length > 1 ? either(schemas, choices, value, label) : one(schemas, choices[0], value, label);
  if (value !== undefined && choices.length <= 1) field.write(value);
  return field;
}

/** Choices without those that only give another one a name, as `{"image": …}` does to a picture, or list texts. */
function distinct(schemas, choices) {
  const files = choices.filter(mediumOf);
  if (files.length) return files.slice(0, 1);
  const forms = choices.map(bare);
  const isText = choices.some((choice) => choice.type === "string");
  return choices.filter((choice, i) => {
    if (isText && isList(choice, schemas)) return false;
    const named = Object.values(choice.properties ?? {});
    return forms.indexOf(forms[i]) === i && !(named.length === 1 && forms.includes(bare(schemas.resolve(named[0]))));
  });
}

function one(schemas, schema, value, label) {
  const kind = KINDS.find(([suits]) => suits(schema, schemas));
  return kind[1](schemas, schema, value, label);
}

const KINDS = [
  [mediumOf, (_, schema, __, label) => mediaField(mediumOf(schema), label)],
  [(schema) => schema.enum, (_, schema, __, label) => selectField(schema.enum, label)],
  [(schema) => "const" in schema, (_, schema) => ({ node: h("span"), read: () => schema.const, write: () => {} })],
  [(schema) => schema.type === "string", (_, schema, __, label) => textField(label)],
  [(schema) => /integer|number/.test(schema.type), (_, schema, __, label) => numberField(schema, label)],
  [(schema) => schema.type === "boolean", (_, __, ___, label) => selectField([true, false], label)],
  [isChat, (_, __, ___, label) => chatField(label)],
  [isTable, (_, __, ___, label) => tableField(label)],
  [isPair, pairField],
  [isList, (_, schema, __, label) => linesField(label)],
  [(schema) => schema.properties, objectField],
  [() => true, (_, __, ___, label) => jsonField(label)],
];

function isChat(schema, schemas) {
  const properties = schema.type === "array" && schemas.resolve(schema.items).properties;
  return Boolean(properties?.role && properties.content);
}

function isTable(schema, schemas) {
  const column = schema.type === "object" && !schema.properties && schema.additionalProperties;
  return Boolean(column) && schemas.choices(column).some((each) => each.type === "array");
}

function isPair(schema, schemas) {
  return schema.type === "array" && schema.maxItems <= 4 && schema.maxItems === schema.minItems && Boolean(schema.items);
}

function isList(schema, schemas) {
  return schema.type === "array" && Boolean(schema.items) && schemas.resolve(schema.items).type === "string";
}

// Fields with a single control

function labelled(label, control, ...more) {
  control.id ||= newId();
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, ...more);
}

function textField(label) {
  const control = h("textarea", { rows: 3, spellcheck: "true" });
  return {
    node: labelled(label, control),
    read: () => control.value || undefined,
    write: (value) => (control.value = typeof value === "string" ? value : ""),
  };
}

function linesField(label) {
  const control = h("textarea", { rows: 4, placeholder: "one per line" });
  return {
    node: labelled(label, control, h("p", { class: "help" }, "One per line.")),
    read() {
      const lines = control.value.split("\n").filter((line) => line.trim());
      return lines.length ? lines : undefined;
    },
    write: (value) => (control.value = (value ?? []).join("\n")),
  };
}

function selectField(values, label) {
  const control = h("select", {}, h("option", { value: "" }, "—"), values.map((value, i) => h("option", { value: i }, `${value}`)));
  return {
    node: labelled(label, control),
    read: () => (control.value === "" ? undefined : values[control.value]),
    write: (value) => (control.value = values.includes(value) ? values.indexOf(value) : ""),
  };
}

function numberField(schema, label) {
  const control = numberControl(schema);
  return {
    node: labelled(label, control),
    read: () => numberIn(control, label),
    write: (value) => (control.value = value ?? ""),
  };
}

/** An input for numbers with the bounds of a schema. */
export function numberControl(schema) {
  const whole = schema.type === "integer";
  const step = whole ? 1 : "any";
  const least = schema.minimum ?? (whole && schema.exclusiveMinimum !== undefined ? schema.exclusiveMinimum + 1 : null);
  return h("input", { type: "number", step, min: least, max: schema.maximum, inputmode: whole ? "numeric" : "decimal" });
}

/** The number in such an input, undefined when it is empty. */
export function numberIn(control, label) {
  if (!control.checkValidity()) throw new Unfit(`${label}: ${control.validationMessage}`, control);
  if (control.value === "") return undefined;
  const number = control.valueAsNumber;
  if (Number.isInteger(number) && !Number.isSafeInteger(number)) {
    throw new Unfit(`${label}: browsers do not count that far exactly`, control);
  }
  return number;
}

/** Any value, as JSON. */
export function jsonField(label) {
  const control = h("textarea", { rows: 4, class: "code", spellcheck: "false", placeholder: "JSON" });
  return {
    node: labelled(label, control),
    read() {
      if (!control.value.trim()) return undefined;
      try {
        return JSON.parse(control.value);
      } catch (error) {
        throw new Unfit(`${label}: this is not JSON: ${error.message}`, control);
      }
    },
    write: (value) => (control.value = value === undefined ? "" : pretty(value)),
  };
}

// Fields made of others

/** One of several forms: a text or a chat. */
function either(schemas, choices, value, label) {
  const id = newId();
  const fields = choices.map((choice) => one(schemas, choice, undefined, label));
  const place = h("div");
  const radios = choices.map((choice, i) => h("input", { type: "radio", name: id, id: `${id}-${i}`, onchange: () => show(i) }));
  const names = radios.map((radio, i) => h("label", { for: radio.id }, formName(schemas, choices[i])));
  let shown = 0;

  function show(i) {
    shown = i;
    radios[i].checked = true;
    place.replaceChildren(fields[i].node);
  }

  function write(given) {
    const fitting = choices.findIndex((choice) => schemas.fits(choice, given));
    show(Math.max(0, fitting));
    if (fitting >= 0) fields[shown].write(given);
  }

  write(value);
  const options = radios.map((radio, i) => h("span", { class: "option" }, radio, names[i]));
  return {
    node: h("div", { class: "either" }, h("div", { class: "forms", role: "radiogroup", "aria-label": `Form of ${label}` }, options), place),
    read: () => fields[shown].read(),
    write,
  };
}

function formName(schemas, schema) {
  if (isChat(schema, schemas)) return "chat";
  if (isTable(schema, schemas)) return "columns";
  if (schema.type === "array") return isObject(schema.items) && schemas.resolve(schema.items).type === "object" ? "rows" : "list";
  if (schema.type === "object") return spoken(schema.title ?? "object");
  return schema.type === "string" ? "text" : (schema.type ?? "JSON");
}

/** An object: its fields one below the other, those that are seldom needed behind a fold. */
function objectField(schemas, schema, value) {
  const { properties, required = [] } = schema;
  const names = Object.keys(properties);
  const fields = Object.fromEntries(names.map((name) => [name, editor(schemas, properties[name], undefined, spoken(name))]));
  const isCommon = (name) => required.includes(name) || (isObject(value) && name in value);
  const [common, rare] = [names.filter(isCommon), names.filter((name) => !isCommon(name))];
  const shown = (some) => some.map((name) => withHelp(fields[name].node, schemas.resolve(properties[name])));
  const folded = rare.length && common.length;
  return {
    node: h("div", { class: "fields" },
      shown(folded ? common : names),
      folded ? h("details", {}, h("summary", {}, `More: ${rare.map(spoken).join(", ")}`), h("div", { class: "fields" }, shown(rare))) : null),
    read() {
      const given = names.map((name) => [name, fields[name].read()]).filter(([, each]) => each !== undefined);
      return given.length ? Object.fromEntries(given) : undefined;
    },
    write(given) {
      for (const name of names) fields[name].write(given?.[name] ?? undefined);
    },
  };
}

function withHelp(node, { description, ...schema }) {
  const words = [description, bounds(schema).join(", ")].filter(Boolean).join(" ");
  const control = node.matches(".field") && node.querySelector(":scope > textarea, :scope > input, :scope > select");
  if (!words || !control || mediumOf(schema)) return node;
  const help = h("p", { class: "help", id: newId() }, words);
  control.setAttribute("aria-describedby", help.id);
  node.append(help);
  return node;
}

/** Two of a kind, or a few: two pictures. */
function pairField(schemas, schema, value, label) {
  const fields = Array.from({ length: schema.maxItems }, (_, i) => editor(schemas, schema.items, value?.[i], `${label} ${i + 1}`));
  return {
    node: h("div", { class: "pair" }, fields.map((field) => field.node)),
    read: () => fields.map((field) => field.read() ?? ""),
    write: (given) => fields.forEach((field, i) => field.write(given?.[i])),
  };
}

/** The messages of a chat. */
function chatField(label) {
  const list = h("ol", { class: "chat", "aria-label": label });
  const add = h("button", { type: "button", class: "quiet", onclick: () => append({ role: "user", content: "" }).focus() }, "Add message");

  function append(message) {
    const { role, content, ...others } = message;
    const isText = typeof content === "string" || content == null;
    const roles = [...new Set(["system", "user", "assistant", "tool", role])];
    const who = h("select", { "aria-label": "Role" }, roles.map((each) => h("option", {}, each)));
    const text = h("textarea", { rows: 2, "aria-label": "Message", class: isText ? null : "code" });
    who.value = role;
    text.value = isText ? (content ?? "") : pretty(content);
    const item = h("li", {}, who, text,
      h("button", { type: "button", class: "quiet", "aria-label": "Remove this message", onclick: () => item.remove() }, "×"));
    item.read = () => ({ role: who.value, content: isText ? text.value : parts(text), ...others });
    list.append(item);
    return text;
  }

  function parts(text) {
    try {
      return JSON.parse(text.value);
    } catch (error) {
      throw new Unfit(`A message's parts are not JSON: ${error.message}`, text);
    }
  }

  function write(messages) {
    list.replaceChildren();
    for (const message of messages ?? [{ role: "user", content: "" }]) append(message);
  }

  write();
  return { node: h("div", { class: "field" }, list, add), read: () => [...list.children].map((item) => item.read()), write };
}

/** A table by columns, edited in place. */
function tableField(label) {
  const table = h("table", { class: "grid", "aria-label": label });
  const row = h("button", { type: "button", class: "quiet", onclick: () => change((rows) => rows.push(rows[0].map(() => ""))) }, "Add row");
  const column = h("button", { type: "button", class: "quiet", onclick: () => change((rows) => rows.forEach((cells) => cells.push(""))) }, "Add column");
  const paste = h("p", { class: "help" }, "A table copied from a spreadsheet, or CSV, can be pasted into any cell. Empty rows and columns are left out.");
  table.addEventListener("paste", (event) => {
    const rows = separated(event.clipboardData.getData("text"));
    if (rows.length < 2 && rows[0].length < 2) return;
    event.preventDefault();
    fill(rows);
  });

  const cells = () => [...table.rows].map((each) => [...each.cells].map((cell) => cell.firstChild.value));

  function change(how) {
    const rows = cells();
    how(rows);
    fill(rows);
  }

  function fill(rows) {
    const width = Math.max(...rows.map((cells) => cells.length));
    table.replaceChildren(...rows.map((cells, i) =>
      h("tr", {}, Array.from({ length: width }, (_, j) => {
        const input = h("input", { "aria-label": i ? `Row ${i}, column ${j + 1}` : `Name of column ${j + 1}` });
        input.value = cells[j] ?? "";
        return h(i ? "td" : "th", i ? {} : { scope: "col" }, input);
      }))));
  }

  fill([["", ""], ["", ""]]);
  return {
    node: h("div", { class: "field" }, h("span", { class: "label" }, label), h("div", { class: "scroll" }, table), h("div", { class: "row" }, row, column), paste),
    read() {
      const [head, ...body] = cells();
      const filled = body.filter((each) => each.some((cell) => cell.trim()));
      const named = head.map((name, j) => [name, filled.map((each) => each[j])]).filter(([name]) => name.trim());
      return named.length ? Object.fromEntries(named) : undefined;
    },
    write(columns) {
      if (!isObject(columns)) return;
      const names = Object.keys(columns);
      const height = Math.max(0, ...Object.values(columns).map((each) => each.length));
      fill([names, ...Array.from({ length: height }, (_, i) => names.map((name) => columns[name][i] ?? ""))]);
    },
  };
}

/** Rows of cells, with tabs between them as spreadsheets copy, or commas and quotes. */
function separated(text) {
  const lines = text.trimEnd().split(/\r?\n/);
  if (text.includes("\t")) return lines.map((line) => line.split("\t"));
  const cell = /(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g;
  return lines.map((line) => [...line.matchAll(cell)].map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain));
}
