/** The playground: a request made from the served task's schema, its answer drawn, and the code that sends it. */

import { drawn } from "./answers.js";
import { copyButton, h, tabs } from "./dom.js";
import { editor, Unfit } from "./inputs.js";
import { encoded, shown } from "./media.js";
import { parameterForm } from "./parameters.js";
import { whenReady } from "./ready.js";
import { isObject, pretty, Schemas } from "./schema.js";
import { note, snippets, title, withoutFiles } from "./snippets.js";
import { readText, words } from "./stream.js";

const JSON_TYPE = "application/json";
const LONG = 100_000;
const byId = (id) => document.getElementById(id);

/** What is on the page: the editors, the request that runs, and the tab of code that is open. */
const page = { files: new Map(), running: null, tab: 0 };

begin();

async function begin() {
  const served = await whenReady((reason) => (byId("reason").textContent = reason));
  const { task, model = "" } = served["x-hfserve"];
  const post = served.paths["/invocations"].post;
  Object.assign(page, { task, model, example: post.requestBody.content[JSON_TYPE].examples?.example?.value });
  document.title = `${title(task)} · hfserve`;
  byId("title").textContent = title(task);
  byId("model").textContent = model;
  say("Ready", "ready");
  build(new Schemas(served.components.schemas));
  byId("accept").append(...Object.keys(post.responses["200"].content).map((type) => h("option", {}, type)));
  if (post.responses["200"].content["text/event-stream"]) byId("accept").value = "text/event-stream";
  byId("loading").hidden = true;
  for (const id of ["request", "reply", "code"]) byId(id).hidden = false;
  if (task === "custom") show("json");
  listen();
  showCode();
}

function build(schemas) {
  const { inputs, parameters } = page.example ?? {};
  page.inputs = editor(schemas, schemas.found.Input ?? {}, inputs, "Input");
  page.parameters = parameterForm(schemas, schemas.found.Parameters ?? {}, parameters);
  byId("inputs").append(page.inputs.node);
  byId("parameters").append(page.parameters.node);
}

function listen() {
  byId("request").addEventListener("submit", (event) => {
    event.preventDefault();
    if (page.running) page.running.abort();
    else run();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !page.running) run();
  });
  byId("as-form").addEventListener("change", () => show("form"));
  byId("as-json").addEventListener("change", () => show("json"));
  byId("request").addEventListener("change", showCode);
}

function say(text, state) {
  byId("state").textContent = text;
  byId("state").dataset.state = state;
}

// The request

/** Show the request as a form or as JSON, with what the other one holds. */
function show(mode) {
  if (mode === "json") {
    const { value, files } = withoutFiles(attempt(formValue) ?? page.example ?? { inputs: "" });
    page.files = files;
    byId("body").value = pretty(value);
  } else {
    const value = attempt(() => JSON.parse(bodyText()));
    if (value !== undefined) {
      page.inputs.write(isObject(value) && "inputs" in value ? value.inputs : value);
      page.parameters.write(value?.parameters);
    }
  }
  byId("as-json").checked = mode === "json";
  byId("as-form").checked = mode === "form";
  byId("by-json").hidden = mode !== "json";
  byId("by-form").hidden = mode === "json";
}

function attempt(read) {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function formValue() {
  const inputs = page.inputs.read();
  const parameters = page.parameters.read();
  return { inputs: inputs ?? "", ...(Object.keys(parameters).length ? { parameters } : {}) };
}

/** The text of the JSON editor, its files in their places. */
function bodyText() {
  let text = byId("body").value;
  for (const [mark, { base64 }] of page.files) text = text.replaceAll(mark, base64);
  return text;
}

/** What is to be sent: `{url, body, accept, task, model}`. Raises Unfit. */
function request() {
  const body = byId("as-json").checked ? bodyText() : JSON.stringify(formValue());
  return { url: new URL("invocations", document.baseURI).href, body, accept: byId("accept").value, task: page.task, model: page.model };
}

// The answer

async function run() {
  clear();
  let sent;
  try {
    sent = request();
  } catch (error) {
    if (!(error instanceof Unfit)) throw error;
    fail("Not sent", error.message);
    reveal(error.field);
    return;
  }
  showCode(sent);
  page.running = new AbortController();
  byId("run").textContent = "Stop";
  byId("answer").setAttribute("aria-busy", "true");
  const started = performance.now();
  try {
    const response = await fetch(sent.url, {
      method: "POST", body: sent.body, signal: page.running.signal,
      headers: { "Content-Type": JSON_TYPE, Accept: sent.accept },
    });
    await (response.ok ? showAnswer(response, sent) : showError(response));
    tell(response, performance.now() - started);
  } catch (error) {
    if (error.name === "AbortError") fail("Stopped", "The request was stopped.", { keep: true });
    else fail("No answer", `The connection failed: ${error.message}`, { keep: true });
  } finally {
    page.running = null;
    byId("run").textContent = "Run";
    byId("answer").setAttribute("aria-busy", "false");
  }
}

function clear() {
  byId("truncated").hidden = true;
  byId("raw-fold").hidden = true;
  byId("raw").textContent = "";
  byId("status").replaceChildren("Running …");
  byId("status").dataset.state = "";
  byId("answer").replaceChildren();
}

/** Show an answer by its type; of one that comes in pieces, what is there so far. */
async function showAnswer(response, sent) {
  const type = (response.headers.get("Content-Type") ?? "").split(";")[0].trim();
  const [medium] = type.split("/");
  if (["image", "audio", "video"].includes(medium)) return put(shown(await encoded(await response.blob()), medium, "The answer"));
  if (medium !== "text" && !/json/.test(type)) return put(await download(response, type));
  const live = h("p", { class: "text live" });
  const text = await readText(response, (soFar) => {
    if (type === JSON_TYPE && /^\s*[[{"\d-]/.test(soFar)) return;
    live.textContent = words(soFar, type).said;
    if (live.textContent && !live.isConnected) put(live);
  });
  raw(text);
  return finish(text, type, live, sent);
}

function finish(text, type, live, sent) {
  const value = attempt(() => (type.includes("jsonlines") ? text.split("\n").filter(Boolean).map((line) => JSON.parse(line)) : JSON.parse(text)));
  const { said, failure } = words(text, type);
  live.textContent = said;
  const isAnswer = /json/.test(type) && value !== undefined && !(type.includes("jsonlines") && said);
  put(isAnswer ? drawn(value, attempt(() => asked(sent.body)) ?? {}) : live);
  if (failure) byId("answer").append(complaint("The stream broke", failure));
}

/** The inputs and parameters of a body. */
function asked(body) {
  const value = JSON.parse(body);
  return isObject(value) && "inputs" in value ? value : { inputs: value };
}

async function download(response, type) {
  const blob = await response.blob();
  const link = h("a", { href: URL.createObjectURL(blob), download: "answer" }, `Download ${blob.size} bytes`);
  return h("p", {}, link, ` of ${type || "no type"}`);
}

async function showError(response) {
  const text = await response.text();
  raw(text);
  const error = attempt(() => JSON.parse(text).error);
  const id = error?.request_id ? `request ${error.request_id}` : "";
  put(complaint(error?.type ?? response.statusText, error?.message ?? text, id));
}

function complaint(kind, message, more = "") {
  return h("div", { class: "error", role: "alert" }, h("strong", {}, kind), h("p", {}, message), more ? h("p", { class: "help" }, more) : null);
}

function fail(kind, message, { keep = false } = {}) {
  byId("status").replaceChildren(kind);
  byId("status").dataset.state = "bad";
  if (!keep) byId("answer").replaceChildren();
  byId("answer").append(complaint(kind, message));
}

function put(node) {
  byId("answer").replaceChildren(node);
}

function raw(text) {
  const value = attempt(() => pretty(withoutFiles(JSON.parse(text)).value)) ?? text;
  byId("raw").textContent = value.length > LONG ? `${value.slice(0, LONG)}\n… ${value.length - LONG} characters more` : value;
  byId("raw-fold").hidden = false;
}

/** Status, time, and whether the input was cut. */
function tell(response, milliseconds) {
  const time = milliseconds < 1000 ? `${milliseconds.toFixed(0)} ms` : `${(milliseconds / 1000).toFixed(2)} s`;
  byId("status").replaceChildren(h("span", { class: "number" }, `${response.status}`), ` ${time}`);
  byId("status").dataset.state = response.ok ? "good" : "bad";
  const cut = response.headers.get("X-HFServe-Truncated");
  byId("truncated").hidden = !cut;
  byId("truncated").textContent = cut ? `Too long for the model, and read only in part: ${cut}` : "";
}

/** Bring a field that cannot be sent into sight. */
function reveal(field) {
  for (let fold = field?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  field?.focus();
}

// The code

function showCode(sent) {
  const what = sent?.body === undefined ? attempt(request) : sent;
  if (!what) return;
  const pages = snippets(what).map(([name, text]) => [
    name, () => h("div", { class: "snippet" }, copyButton(() => text), h("pre", { class: "code", tabindex: 0 }, h("code", {}, text))),
  ]);
  byId("snippets").replaceChildren(tabs("Languages", pages, { chosen: page.tab, onchange: (i) => (page.tab = i) }));
  byId("snippets-note").textContent = note(what.body);
}
