/** Reads JSON schemas as pydantic writes them. */

const WORDS = { string: "text", integer: "whole number", number: "number", boolean: "true or false", null: "null" };
const BOUNDS = { minimum: "≥", exclusiveMinimum: ">", maximum: "≤", exclusiveMaximum: "<" };
const HUGE = 2 ** 53;
const BESIDE = ["title", "description", "default"];

/** The schemas of a document by name. */
export class Schemas {
  constructor(found) {
    this.found = found;
  }

  /** A schema in place of a reference to it; what stands beside the reference wins. */
  resolve(schema = {}) {
    if (schema.$ref) {
      const { $ref, ...beside } = schema;
      return { ...this.resolve(this.found[nameOf($ref)]), ...beside };
    }
    return schema.allOf?.length === 1 ? { ...this.resolve(schema.allOf[0]), ...schema, allOf: undefined } : schema;
  }

  /** What a value may be, but for null: one schema or several. */
  choices(schema) {
    const resolved = this.resolve(schema);
    const several = resolved.anyOf ?? resolved.oneOf;
    const isMixed = several && !several.every((each) => each.required && !each.type);
    if (!isMixed) return resolved.type === "null" ? [] : [resolved];
    return several.flatMap((each) => this.choices(each));
  }

  /** Whether a value has the form of a schema, as far as is needed to tell one choice from another. */
  fits(schema, value) {
    return this.choices(schema).some((choice) => this.#fits(choice, value));
  }

  #fits(schema, value) {
    if (schema.enum) return schema.enum.includes(value);
    if ("const" in schema) return schema.const === value;
    if (schema.type === "array") return Array.isArray(value) && this.#itemsFit(schema, value);
    if (schema.type === "object") return isObject(value) && this.#fieldsFit(schema, value);
    if (schema.type === "integer") return Number.isInteger(value);
    return schema.type === undefined || schema.type === typeof value;
  }

  #itemsFit({ items, minItems = 0, maxItems = Infinity }, value) {
    const counted = value.length >= minItems && value.length <= maxItems;
    return counted && (!items || value.every((each) => this.fits(items, each)));
  }

  #fieldsFit({ properties = {}, required = [], additionalProperties: others }, value) {
    if (!required.every((name) => name in value)) return false;
    return Object.entries(value).every(([name, each]) => {
      const about = properties[name] ?? others;
      return about !== false && (!isObject(about) || each === null || this.fits(about, each));
    });
  }
}

/** `#/components/schemas/Input` names Input. */
export const nameOf = (reference) => reference.split("/").at(-1);

export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** image, audio or video, where a text is a file in base64. */
export const mediumOf = (schema) =>
  schema.contentEncoding === "base64" ? (schema.contentMediaType ?? "*/*").split("/")[0] : null;

/** A schema without its words, to tell whether two are the same. */
export function bare(schema) {
  return JSON.stringify(schema, (name, value) => (BESIDE.includes(name) ? undefined : value));
}

/** The bounds of a schema, in signs and words. */
export function bounds(schema) {
  const signs = Object.entries(BOUNDS).filter(([name]) => Math.abs(schema[name]) < HUGE).map(([name, sign]) => `${sign}\u00a0${schema[name]}`);
  const counted = schema.type === "array" ? ["minItems", "maxItems", "items"] : ["minLength", "maxLength", "characters"];
  const [least, most] = [schema[counted[0]], schema[counted[1]]];
  if (least !== undefined && least === most) signs.push(many(least, counted[2]));
  else {
    if (least) signs.push(`at least ${many(least, counted[2])}`);
    if (most !== undefined) signs.push(`at most ${many(most, counted[2])}`);
  }
  if (schema.pattern) signs.push(`like ${schema.pattern}`);
  return signs;
}

const many = (number, noun) => `${number} ${number === 1 ? noun.slice(0, -1) : noun}`;

/** The kind of a value in a word or two. */
export function word(schema) {
  if (mediumOf(schema)) return `${schema.contentMediaType ?? "bytes"} in base64`;
  return WORDS[schema.type] ?? schema.type ?? "anything";
}

/** A name in words: `word_boxes` and `TextPair` are word boxes and text pair. */
export function spoken(name) {
  return name.replaceAll("_", " ").replace(/(?<=[a-z])(?=[A-Z])/g, " ").toLowerCase();
}

/** The schema that a value could have, for a server that tells none. */
export function guessed(value) {
  if (typeof value === "string") return mediaSchema(value) ?? { type: "string" };
  if (Array.isArray(value)) return { type: "array", items: value.length ? guessed(value[0]) : {} };
  if (!isObject(value)) return { type: typeof value };
  const properties = Object.fromEntries(Object.entries(value).map(([name, each]) => [name, guessed(each)]));
  return { type: "object", properties, required: Object.keys(value) };
}

function mediaSchema(text) {
  const kind = text.length > 64 && sniffed(text);
  return kind ? { type: "string", contentEncoding: "base64", contentMediaType: `${kind.split("/")[0]}/*` } : null;
}

const BEGINNINGS = {
  iVBORw0KGgo: "image/png", "/9j/": "image/jpeg", R0lGOD: "image/gif", Qk0: "image/bmp", UklGR: "audio/wav",
  SUQz: "audio/mpeg", "//": "audio/mpeg", ZkxhQ: "audio/flac", T2dnUw: "audio/ogg", GkXfo: "video/webm",
  WVVWNE1QRUcy: "video/x-yuv4mpeg",
};

/** The media type of a file in base64 by its first bytes, null when they tell nothing. WebP and MP4 tell it later. */
export function sniffed(base64) {
  if (base64.startsWith("UklGR") && base64.slice(12, 16) === "RUJQ") return "image/webp";
  if (base64.slice(8, 11) === "eXB") return "video/mp4";
  return Object.entries(BEGINNINGS).find(([beginning]) => base64.startsWith(beginning))?.[1] ?? null;
}

/** JSON for people: what fits on a line stands on one. */
export function pretty(value, indent = "") {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const inner = `${indent}  `;
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const name = (key) => (Array.isArray(value) ? "" : `${JSON.stringify(key)}: `);
  const parts = Object.entries(value).map(([key, each]) => name(key) + pretty(each, inner));
  const line = `${open}${parts.join(", ")}${close}`;
  if (line.length + indent.length <= 80 && !line.includes("\n")) return line;
  return `${open}\n${parts.map((part) => inner + part).join(",\n")}\n${indent}${close}`;
}
