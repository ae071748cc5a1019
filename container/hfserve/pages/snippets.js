/** The code that sends what was just sent. Files in it are read from disk, so that the code stays short. */

import { fileName } from "./media.js";
import { isObject, spoken } from "./schema.js";

const LONG = 1000;
const WIDTH = 88;

/** Each way to send a request: name and text. A request is `{url, body, accept, task, model}`, its body a string. */
export function snippets(request) {
  const payload = new Payload(request.body);
  return [
    ["curl", curl(request, payload)],
    ["Python", requests(request, payload)],
    ["boto3", boto3(request, payload)],
    ["SageMaker SDK", sagemaker(request, payload)],
  ];
}

/** Long strings of base64 replaced by names: `{value, files}`, files a Map from a mark to `{name, base64}`. */
export function withoutFiles(value) {
  const files = new Map();
  const known = new Map();

  function mark(base64) {
    if (known.has(base64)) return known.get(base64);
    const name = unused(fileName(base64));
    const made = `⟨${name}⟩`;
    files.set(made, { name, base64 });
    known.set(base64, made);
    return made;
  }

  function unused(name) {
    const taken = [...files.values()].map((file) => file.name);
    if (!taken.includes(name)) return name;
    const [stem, ending] = [name.slice(0, name.lastIndexOf(".")), name.slice(name.lastIndexOf("."))];
    return `${stem}-${taken.length + 1}${ending}`;
  }

  function walk(each) {
    if (typeof each === "string") return isFile(each) ? mark(each) : each;
    if (Array.isArray(each)) return each.map(walk);
    return isObject(each) ? Object.fromEntries(Object.entries(each).map(([name, inner]) => [name, walk(inner)])) : each;
  }

  return { value: walk(value), files };
}

const isFile = (text) => text.length > LONG && /^[A-Za-z0-9+/]+={0,2}$/.test(text);

/** A body, as JSON where it is JSON and with its files apart. */
class Payload {
  constructor(body) {
    this.body = body;
    this.files = new Map();
    try {
      Object.assign(this, withoutFiles(JSON.parse(body)));
      this.isJson = true;
    } catch {
      this.isJson = false;
    }
  }

  /** Lines of Python that name the files. */
  get reading() {
    return [...this.files.values()].map(({ name }) => `${variable(name)} = base64.b64encode(Path(${string(name)}).read_bytes()).decode()`);
  }

  get imports() {
    return this.files.size ? ["import base64", "from pathlib import Path"] : [];
  }

  /** The body as Python writes it. */
  get python() {
    const names = new Map([...this.files].map(([mark, { name }]) => [mark, variable(name)]));
    return this.isJson ? literal(this.value, names) : string(this.body);
  }
}

function variable(name) {
  const word = name.replace(/\.[^.]*$/, "").replace(/[^A-Za-z0-9]+/g, "_").toLowerCase();
  return /^[a-z]/.test(word) ? `${word}_base64` : `file_${word}_base64`;
}

// Languages

const string = (text) => JSON.stringify(text);

/** A value as Python writes it, broken into lines where it is long. */
function literal(value, names, indent = "") {
  if (names.has(value)) return names.get(value);
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return string(value);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const within = (inner) => Array.isArray(value)
    ? value.map((each) => literal(each, names, inner))
    : Object.entries(value).map(([name, each]) => `${string(name)}: ${literal(each, names, inner)}`);
  const line = `${open}${within("").join(", ")}${close}`;
  if (line.length + indent.length <= WIDTH && !line.includes("\n")) return line;
  const inner = `${indent}    `;
  return `${open}\n${within(inner).map((each) => `${inner}${each},\n`).join("")}${indent}${close}`;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl({ url, accept }, payload) {
  const head = [`curl ${quoted(url)}`, "-H 'Content-Type: application/json'", `-H ${quoted(`Accept: ${accept}`)}`];
  if (!payload.files.size) return [...head, `--data-raw ${quoted(payload.body)}`].join(" \\\n  ");
  let json = JSON.stringify(payload.value).replace(/[\\$`]/g, "\\$&");
  for (const [mark, { name }] of payload.files) json = json.replaceAll(mark, `$(base64 < ${quoted(name)} | tr -d '\\n')`);
  return `${[...head, "--data-binary @- <<END"].join(" \\\n  ")}\n${json}\nEND`;
}

function script(payload, imports, lines) {
  const standard = [...payload.imports, ...imports.standard].sort((a, b) => a.startsWith("from") - b.startsWith("from") || (a < b ? -1 : 1));
  const parts = [standard.join("\n"), imports.others.join("\n"), payload.reading.join("\n"), lines.join("\n")];
  return parts.filter(Boolean).join("\n\n");
}

const isJson = (accept) => accept === "application/json";
const isText = (accept) => /^text\/|jsonlines/.test(accept);

function requests({ url, accept }, payload) {
  const body = payload.isJson ? `json=payload,` : "data=payload.encode(),";
  const type = payload.isJson ? "" : `"Content-Type": "application/json", `;
  const shown = isJson(accept) ? "reply.json()" : isText(accept) ? "reply.text" : "len(reply.content)";
  const isStream = accept === "text/event-stream";
  return script(payload, { standard: [], others: ["import requests"] }, [
    `payload = ${payload.python}`,
    "reply = requests.post(",
    `    ${string(url)},`,
    `    ${body}`,
    `    headers={${type}"Accept": ${string(accept)}},`,
    ...(isStream ? ["    stream=True,"] : []),
    ")",
    "if not reply.ok:",
    "    raise SystemExit(reply.text)",
    ...(isStream ? ["for line in reply.iter_lines():", "    print(line.decode())"] : [`print(${shown})`]),
  ]);
}

function boto3({ accept }, payload) {
  const isStream = accept === "text/event-stream";
  const bytes = `reply["Body"].read()`;
  const shown = isJson(accept) ? `json.loads(${bytes})` : isText(accept) ? `${bytes}.decode()` : `len(${bytes})`;
  const json = payload.isJson || isJson(accept) ? ["import json"] : [];
  return script(payload, { standard: isStream ? [...json, "import sys"] : json, others: ["import boto3"] }, [
    `payload = ${payload.python}`,
    `client = boto3.client("sagemaker-runtime")`,
    `reply = client.invoke_endpoint${isStream ? "_with_response_stream" : ""}(`,
    `    EndpointName="my-endpoint",`,
    `    ContentType="application/json",`,
    `    Accept=${string(accept)},`,
    `    Body=${payload.isJson ? "json.dumps(payload)" : "payload.encode()"},`,
    ")",
    ...(isStream
      ? [`for event in reply["Body"]:`, `    sys.stdout.buffer.write(event["PayloadPart"]["Bytes"])`]
      : [`print(${shown})`]),
  ]);
}

function sagemaker({ task, model }, payload) {
  const others = ["from sagemaker.huggingface import HuggingFaceModel"];
  if (!payload.isJson) others.push("from sagemaker.serializers import IdentitySerializer");
  const env = { ...(task === "custom" ? {} : { HF_TASK: task }), ...(model.includes("/") ? { HF_MODEL_ID: model } : {}) };
  return script(payload, { standard: [], others }, [
    "model = HuggingFaceModel(",
    `    image_uri="123456789012.dkr.ecr.eu-west-1.amazonaws.com/hfserve:latest",  # yours`,
    ...(model.includes("/") ? [] : [`    model_data="s3://my-bucket/model.tar.gz",`]),
    `    env=${literal(env, new Map())},`,
    `    role="arn:aws:iam::123456789012:role/my-role",`,
    ")",
    `predictor = model.deploy(initial_instance_count=1, instance_type="ml.m5.xlarge")`,
    `# To an endpoint that is there: predictor = sagemaker.huggingface.HuggingFacePredictor("my-endpoint")`,
    ...(payload.isJson ? [] : [`predictor.serializer = IdentitySerializer("application/json")`]),
    "",
    `payload = ${payload.python}`,
    "print(predictor.predict(payload))",
  ]);
}

/** What stands under the code. */
export function note(body) {
  const names = [...new Payload(body).files.values()].map(({ name }) => name);
  if (!names.length) return "";
  return `Files are read from the current directory: ${names.join(", ")}. They are sent as base64.`;
}

/** A task in words, for headings. */
export const title = (task) => spoken(task.replaceAll("-", " ")).replace(/^./, (letter) => letter.toUpperCase());
