/** The served OpenAPI document, as a page to read. */

import { copyButton, h } from "./dom.js";
import { whenReady } from "./ready.js";
import { bounds, isObject, nameOf, pretty, word } from "./schema.js";
import { title, withoutFiles } from "./snippets.js";

const byId = (id) => document.getElementById(id);
const anchor = (name) => `schema-${name}`;

const FIRST = ["Request", "Input", "Parameters", "Answer", "Answers"];

/** Where a schema stands: what every task has first, errors last. */
const place = (name) => (name === "Error" ? Infinity : FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);

begin();

async function begin() {
  const served = await whenReady((reason) => (byId("loading").textContent = `The model is being loaded. ${reason}`));
  const { info, paths, components } = served;
  document.title = `${title(info.title)} · docs`;
  byId("title").textContent = title(info.title);
  byId("about").textContent = info.description;
  const operations = Object.entries(paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method, operation })));
  const schemas = Object.entries(components.schemas).sort(([one], [other]) => place(one) - place(other));
  byId("document").replaceChildren(
    ...operations.map(operationCard),
    h("h2", { class: "part" }, "Schemas"),
    ...schemas.map(schemaCard),
  );
  byId("contents").append(contents(operations, schemas.map(([name]) => name)));
  document.querySelector("main").dataset.ready = "";
  if (location.hash) byId(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  byId("playground").hidden = !(await fetch("./", { method: "HEAD" })).ok;
}

function contents(operations, names) {
  const list = (items) => h("ul", {}, items.map(([href, name]) => h("li", {}, h("a", { href: `#${href}` }, name))));
  return h("div", {},
    h("h2", {}, "Paths"), list(operations.map(({ path, operation }) => [operation.operationId, path])),
    h("h2", {}, "Schemas"), list(names.map((name) => [anchor(name), name])));
}

// Paths

function operationCard({ path, method, operation }) {
  const { operationId, summary, parameters = [], requestBody, responses } = operation;
  return h("section", { class: "card", id: operationId, "aria-label": path },
    h("h2", {}, h("span", { class: "method" }, method.toUpperCase()), " ", h("code", {}, path)),
    h("p", {}, summary),
    requestBody ? [h("h3", {}, "Request body"), contentOf(requestBody.content)] : null,
    parameters.length ? [h("h3", {}, "Beside the body"), given(parameters)] : null,
    h("h3", {}, "Responses"),
    responsesOf(responses));
}

function given(parameters) {
  const rows = parameters.map(({ name, in: place, description, schema, content }) => [
    [h("code", {}, name), h("span", { class: "help" }, ` in the ${place}`)],
    [description, " ", kind(schema ?? Object.values(content)[0].schema)],
  ]);
  return table(["name", "what it does"], rows);
}

/** What a body may be: JSON with its schema and examples, and the names of the other forms. */
function contentOf(content) {
  const full = Object.entries(content).filter(([, { schema, examples }]) => isTelling(schema) || examples);
  const others = Object.keys(content).filter((type) => !full.some(([name]) => name === type));
  return [
    full.map(([type, { schema, examples = {} }]) => [
      h("p", { class: "type" }, h("code", {}, type), isTelling(schema) ? [" ", kind(schema)] : null),
      Object.values(examples).map(example),
    ]),
    others.length ? h("p", {}, "Also as ", commas(others.map((type) => h("code", {}, type)))) : null,
  ];
}

/** Whether a schema says more than that there is text. */
const isTelling = (schema) => Boolean(schema) && !(Object.keys(schema).length === 1 && schema.type === "string");

function example({ summary, value }) {
  const text = pretty(withoutFiles(value).value);
  return h("figure", { class: "example" },
    h("figcaption", { class: "row apart help" }, summary, copyButton(() => JSON.stringify(value))),
    h("pre", { class: "code", tabindex: 0 }, text));
}

function responsesOf(responses) {
  const all = Object.entries(responses);
  const [told, brief] = [all.filter(([, { headers, content }]) => headers || (content && !isError(content))), all.filter(([, { headers, content }]) => !headers && (!content || isError(content)))];
  return [
    told.map(([status, { description, headers = {}, content }]) => h("div", { class: "response" },
      h("p", {}, statusMark(status), " ", description),
      contentOf(content),
      Object.entries(headers).map(([name, header]) => h("p", {}, "Header ", h("code", {}, name), ": ", header.description)))),
    brief.length ? table(["status", "meaning", "body"], brief.map(([status, { description, content }]) => [
      statusMark(status), description, content ? kind(Object.values(content)[0].schema) : "",
    ])) : null,
  ];
}

const isError = (content) => nameOf(Object.values(content)[0].schema?.$ref ?? "") === "Error";

const statusMark = (status) => h("strong", { class: status < 400 ? "status good" : "status bad" }, status);

// Schemas

function schemaCard([name, schema]) {
  return h("section", { class: "card schema", id: anchor(name), "aria-label": name },
    h("h3", {}, name), schema.description ? h("p", {}, schema.description) : null, schemaBody(schema));
}

function schemaBody(schema) {
  if (schema.properties) return fields(schema);
  return h("p", {}, kind(schema), limits(schema));
}

/** The fields of an object; those of an object inside stand in a table of their own. */
function fields({ properties, required = [], additionalProperties }) {
  const rows = Object.entries(properties).map(([name, about]) => [
    [h("code", { class: "name" }, name), required.includes(name) ? h("span", { class: "needed" }, "needed") : null],
    [h("div", { class: "kind" }, kind(about)), limits(about)],
    [about.description, standard(about), about.properties ? fields(about) : null],
  ]);
  return [
    rows.length ? table(["field", "type", "what it is"], rows) : h("p", { class: "help" }, "No fields."),
    additionalProperties === false ? h("p", { class: "help" }, "Other fields are refused.") : null,
  ];
}

function standard({ default: value }) {
  return value === undefined || value === null ? null : h("p", { class: "help" }, "Default: ", h("code", {}, JSON.stringify(value)));
}

/** The bounds of a schema, and of those it offers a choice of. */
function limits(schema) {
  const found = [...new Set([schema, ...(schema.anyOf ?? []), ...(schema.oneOf ?? [])].flatMap(bounds))];
  return found.length ? h("div", { class: "help" }, found.join(", ")) : null;
}

/** The type of a value on one line, with links to the schemas that it names. */
function kind(schema = {}) {
  if (schema.$ref) return h("a", { href: `#${anchor(nameOf(schema.$ref))}` }, nameOf(schema.$ref));
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices?.every((choice) => !choice.required || choice.type)) return h("span", {}, joined(choices.map(kind), " or "));
  if (schema.enum) return h("span", {}, joined(schema.enum.map(value), " or "));
  if ("const" in schema) return value(schema.const);
  if (schema.prefixItems) return h("span", {}, "[", joined(schema.prefixItems.map(kind), ", "), "]");
  if (schema.type === "array") return h("span", {}, "list of ", kind(schema.items));
  if (isObject(schema.additionalProperties)) return h("span", {}, "object of ", kind(schema.additionalProperties));
  if (schema.properties && !schema.title) return h("span", {}, "{", joined(Object.entries(schema.properties).map(([name, about]) => h("span", {}, name, ": ", kind(about))), ", "), "}");
  return h("span", {}, word(schema));
}

const value = (each) => h("code", {}, JSON.stringify(each));

const joined = (nodes, between) => nodes.flatMap((node, i) => (i ? [between, node] : [node]));

const commas = (nodes) => joined(nodes, ", ");

function table(names, rows) {
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)))))));
}
