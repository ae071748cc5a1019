/** A form for the parameters of a task. What is left empty is not sent. */

import { h, newId } from "./dom.js";
import { numberControl, numberIn, Unfit } from "./inputs.js";
import { bounds } from "./schema.js";

const COMMON = [
  "candidate_labels", "multi_label", "hypothesis_template", "max_new_tokens", "temperature", "top_p", "top_k", "do_sample",
  "seed", "stop", "return_full_text", "src_lang", "tgt_lang", "num_beams", "aggregation_strategy", "function_to_apply",
  "threshold", "targets", "pooling", "normalize", "max_answer_len", "handle_impossible_answer", "return_timestamps",
  "return_text", "num_inference_steps", "guidance_scale", "negative_prompt", "height", "width", "sequential", "truncation",
];
const MOST_SHOWN = 8;
const UNUSED = /not used|[Cc]hanges no answer|same as|[Oo]ther name|old name|only silences/;

/** The form: `node`, `read()` and `write(values)`. */
export function parameterForm(schemas, schema, example = {}) {
  const { properties = {}, required = [] } = schemas.resolve(schema);
  const names = Object.keys(properties);
  const fields = Object.fromEntries(names.map((name) => [name, parameter(schemas, name, properties[name], required.includes(name))]));
  const first = (name) => required.includes(name) || name in example;
  const used = names.filter((name) => !first(name) && !UNUSED.test(properties[name].description ?? ""));
  const common = COMMON.filter((name) => used.includes(name));
  const shown = [...new Set([...names.filter(first), ...common, ...used])].slice(0, Math.max(MOST_SHOWN, names.filter(first).length));
  const rest = names.filter((name) => !shown.includes(name));
  const nodes = (some) => h("div", { class: "parameters" }, some.map((name) => fields[name].node));

  function write(values) {
    for (const name of names) fields[name].write(values?.[name]);
  }

  write(example);
  return {
    node: h("div", {},
      names.length ? nodes(shown) : h("p", { class: "help" }, "There is nothing to choose."),
      rest.length ? h("details", {}, h("summary", {}, `${rest.length} more`), nodes(rest)) : null),
    read: () => read(fields),
    write,
  };
}

function read(fields) {
  const given = Object.entries(fields).map(([name, field]) => [name, field.read()]);
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}

/** The control of one parameter with its name and what it does. */
function parameter(schemas, name, schema, isRequired) {
  const choices = schemas.choices(schema);
  if (choices.length === 1 && choices[0].properties) return group(schemas, name, schema, choices[0]);
  const { control, ...field } = controlFor(choices, name, schema);
  control.id = newId();
  control.name = name;
  if (!control.placeholder && schema.default != null) control.setAttribute("placeholder", inWords(schema.default));
  if (isRequired) control.required = true;
  const words = [schema.description, ...new Set(choices.flatMap(bounds))].filter(Boolean).join(" · ");
  const help = words ? h("p", { class: "help", id: newId() }, words) : null;
  if (help) control.setAttribute("aria-describedby", help.id);
  return { ...field, node: h("div", { class: "field" }, h("label", { for: control.id }, h("code", {}, name)), control, help) };
}

function controlFor(choices, name, schema) {
  const kinds = new Set(choices.map((choice) => choice.type));
  const values = choices.flatMap(fixed);
  if (values.every((value) => value !== undefined) && values.length) return select(values, schema);
  if (kinds.has("array")) {
    const items = choices.find((choice) => choice.type === "array").items ?? {};
    if (items.type === "string") return typed((text) => commas(text), (value) => [value].flat().join(", "), "a, b, c");
    if (/integer|number/.test(items.type)) return typed((text) => numbers(text, kinds), (value) => [value].flat().join(", "), "1, 2, 3");
  }
  if (choices.length === 1 && /integer|number/.test(choices[0].type)) return counted(choices[0], name);
  if (kinds.has("string") && !kinds.has("object")) return typed((text) => worded(text, kinds), (value) => `${value}`);
  return typed((text) => parsed(text), (value) => JSON.stringify(value), "JSON");

  function numbers(text, allowed) {
    const found = commas(text).map(Number);
    if (found.some(Number.isNaN)) throw new Unfit(`${name}: numbers between commas, please`, null);
    return found.length === 1 && (allowed.has("integer") || allowed.has("number")) ? found[0] : found;
  }

  function parsed(text) {
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Unfit(`${name}: this is not JSON: ${error.message}`, null);
    }
  }
}

/** The values among which a schema lets one choose, [undefined] for one that takes others. */
function fixed(schema) {
  if (schema.enum) return schema.enum;
  if ("const" in schema) return [schema.const];
  return schema.type === "boolean" ? [true, false] : [undefined];
}

function select(values, schema) {
  const none = schema.default == null ? "default" : `default: ${inWords(schema.default)}`;
  const options = values.map((value, i) => h("option", { value: i }, `${value}`));
  const control = h("select", {}, h("option", { value: "" }, none), options);
  return {
    control,
    read: () => (control.value === "" ? undefined : values[control.value]),
    write: (value) => (control.value = values.includes(value) ? values.indexOf(value) : ""),
  };
}

function counted(schema, name) {
  const control = numberControl(schema);
  return { control, read: () => numberIn(control, name), write: (value) => (control.value = value ?? "") };
}

function typed(meaning, text, placeholder) {
  const control = h("input", { type: "text", placeholder, autocomplete: "off", spellcheck: "false" });
  return {
    control,
    read() {
      if (control.value === "") return undefined;
      try {
        return meaning(control.value);
      } catch (error) {
        throw error instanceof Unfit ? new Unfit(error.message, control) : error;
      }
    },
    write: (value) => (control.value = value == null ? "" : text(value)),
  };
}

function group(schemas, name, schema, { properties }) {
  const fields = Object.fromEntries(Object.entries(properties).map(([inner, about]) => [inner, parameter(schemas, inner, about)]));
  const nodes = h("div", { class: "parameters" }, Object.values(fields).map((field) => field.node));
  return {
    node: h("details", { class: "field group" }, h("summary", {}, h("code", {}, name)), schema.description ? h("p", { class: "help" }, schema.description) : null, nodes),
    read() {
      const given = read(fields);
      return Object.keys(given).length ? given : undefined;
    },
    write(values) {
      for (const inner of Object.keys(fields)) fields[inner].write(values?.[inner]);
    },
  };
}

const commas = (text) => text.split(",").map((each) => each.trim()).filter(Boolean);

const worded = (text, kinds) => (kinds.has("boolean") && /^(true|false)$/.test(text) ? text === "true" : text);

const inWords = (value) => (typeof value === "string" ? value : Array.isArray(value) ? value.join(", ") : JSON.stringify(value));
