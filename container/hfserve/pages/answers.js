/** Draws an answer as people want to see it: the first form of the table that suits. */

import { h, svg } from "./dom.js";
import { shown } from "./media.js";
import { isObject, pretty, sniffed } from "./schema.js";

const FEW = 20;
const HUES = ["#4263eb", "#0c8599", "#e8590c", "#2f9e44", "#c2255c", "#7048e8", "#b08900", "#1971c2"];
const TEXTS = ["generated_text", "summary_text", "translation_text", "text", "answer"];

/** An element for an answer. `asked` is `{inputs, parameters}` as they were sent. */
export function drawn(answer, asked) {
  const { inputs } = asked;
  const isOfSeveral = Array.isArray(inputs) && Array.isArray(answer) && inputs.length === answer.length && !isOneInput(inputs, answer);
  if (isOfSeveral) return several(answer.map((each, i) => [`Input ${i + 1}`, one(each, { ...asked, inputs: inputs[i] })]));
  const questions = inputs?.question ?? inputs?.query;
  if (Array.isArray(questions) && questions.length === answer?.length) {
    return several(answer.map((each, i) => [questions[i], one(each, asked)]));
  }
  return one(answer, asked);
}

/** Whether a list is one input: a chat, two pictures, the words of a text. */
function isOneInput(inputs, answer) {
  return Boolean(inputs[0]?.role) || Boolean(answer[0]?.keypoint_image_0) || Boolean(answer[0]?.entity ?? answer[0]?.entity_group);
}

function several(pairs) {
  return h("div", { class: "several" }, pairs.map(([name, node]) => h("section", {}, h("h3", {}, name), node)));
}

function one(answer, asked) {
  const [, draw] = FORMS.find(([suits]) => suits(answer, asked));
  return h("div", { class: "answer" }, draw(answer, asked));
}

const each = (...names) => (answer) =>
  Array.isArray(answer) && answer.length > 0 && answer.every((row) => isObject(row) && names.every((name) => name in row));
const has = (...names) => (answer) => isObject(answer) && names.every((name) => name in answer);
const numeric = (answer) => Array.isArray(answer) && answer.length > 0 && (typeof answer[0] === "number" || numeric(answer[0]));

const FORMS = [
  [(answer) => Array.isArray(answer) && answer.length === 0, () => h("p", { class: "help" }, "Nothing was found.")],
  [has("labels", "scores"), ({ labels, scores }) => bars(labels.map((label, i) => ({ label, score: scores[i] })))],
  [has("choice", "scores"), choice],
  [has("predicted_depth", "depth"), depth],
  [has("masks", "scores"), ({ masks, scores }, asked) => overlaid(masks.map((mask, i) => ({ mask, score: scores[i], label: `mask ${i + 1}` })), asked)],
  [has("audio", "sampling_rate"), ({ audio, sampling_rate }) => [shown(audio, "audio", "The answer"), h("p", { class: "help" }, `${sampling_rate} samples a second`)]],
  [has("coordinates", "cells"), cells],
  [has("text", "chunks"), transcript],
  [has("label", "score"), (answer) => bars([answer])],
  [has("answer", "start", "end"), (answer, asked) => spans([answer], asked)],
  [(answer) => isObject(answer) && Object.values(answer).length > 0 && Object.values(answer).every((row) => isObject(row) && "type" in row), decisions],
  [has("generated_text"), (answer, asked) => texts([answer], asked)],
  [(answer) => isObject(answer) && TEXTS.some((name) => typeof answer[name] === "string"), (answer, asked) => texts([answer], asked)],
  [each("box", "label"), boxed],
  [each("mask", "label"), overlaid],
  [each("keypoint_image_0", "keypoint_image_1"), matched],
  [(answer) => each("entity")(answer) || each("entity_group")(answer), entities],
  [each("token_str", "score"), tokens],
  [(answer) => Array.isArray(answer) && answer.length > 0 && answer.every(each("token_str")), (answer, asked) => several(answer.map((some, i) => [`Mask ${i + 1}`, one(some, asked)]))],
  [each("index", "score"), ranked],
  [each("label", "score"), bars],
  [each("answer", "start", "end"), spans],
  [each("answer", "score"), (answer) => bars(answer.map(({ answer: label, score }) => ({ label, score })))],
  [(answer) => TEXTS.some((name) => each(name)(answer)), texts],
  [(answer, { inputs }) => numeric(answer) && answer.length === inputs?.sentences?.length, (answer, { inputs }) => bars(answer.map((score, i) => ({ label: inputs.sentences[i], score })))],
  [numeric, vectors],
  [(answer) => typeof answer === "string" && sniffed(answer)?.startsWith("image/"), (answer) => picture(answer)],
  [(answer) => Array.isArray(answer) && answer.every((one) => typeof one === "string" && sniffed(one)), (answer) => answer.map((one) => picture(one))],
  [(answer) => typeof answer === "string", (answer) => h("p", { class: "text" }, answer)],
  [() => true, (answer) => h("pre", { class: "code" }, pretty(answer))],
];

// Scores

/** A number that keeps all its digits for whoever asks. */
function figure(value) {
  if (value === null || value === undefined) return null;
  const isShare = value >= 0 && value <= 1;
  return h("data", { value, title: value }, isShare ? `${(100 * value).toFixed(value < 0.1 ? 2 : 1)} %` : Number(value).toPrecision(4));
}

function bars(rows) {
  const most = Math.max(1, ...rows.map((row) => Math.abs(row.score ?? 0)));
  const top = Math.max(...rows.map((row) => row.score ?? 0));
  const items = rows.map((row) => {
    const fill = h("span", { class: row.score < 0 ? "fill below" : "fill" });
    fill.style.width = `${(100 * Math.abs(row.score ?? 0)) / most}%`;
    return h("li", { class: row.score === top ? "top" : null },
      h("span", { class: "label" }, row.label === "" ? "(none)" : row.label), figure(row.score), h("span", { class: "track", "aria-hidden": "true" }, fill),
      row.more ? h("span", { class: "more" }, row.more) : null);
  });
  return folded(items, (some) => h("ol", { class: "bars" }, some));
}

/** The first few, and the others behind a fold. */
function folded(items, list) {
  const rest = items.slice(FEW);
  return [list(items.slice(0, FEW)), rest.length ? h("details", {}, h("summary", {}, `${rest.length} more`), list(rest)) : null];
}

function choice({ choice: chosen, scores }, { inputs }) {
  const labels = inputs?.choices ?? scores.map((_, i) => `${i + 1}`);
  return [h("p", { class: "text" }, chosen), bars(scores.map((score, i) => ({ label: labels[i], score })))];
}

function ranked(rows, { inputs }) {
  const given = inputs?.texts ?? inputs?.documents ?? [];
  return bars(rows.map(({ index, score, text }) => ({ label: text ?? given[index] ?? `${index}`, score })));
}

function tokens(rows) {
  return bars(rows.map(({ token_str: label, score, sequence }) => ({ label, score, more: sequence })));
}

function decisions(answers) {
  return Object.entries(answers).map(([name, answer]) => h("section", {}, h("h3", {}, name), decision(answer)));
}

function decision({ type, noul, choice: chosen, score, probabilities, legend = {} }) {
  if (type === "noul") return bars([{ label: "yes", score: noul }, { label: "no", score: 1 - noul }]);
  const rows = Object.entries(probabilities ?? {}).map(([label, each]) => ({ label: legend[label] ? `${label}: ${legend[label]}` : label, score: each }));
  return [h("p", { class: "text" }, chosen ?? figure(score)), bars(rows)];
}

// Texts

function texts(rows, { inputs }) {
  return rows.map((row) => {
    const text = row[TEXTS.find((name) => name in row)];
    if (Array.isArray(text)) return chat(text);
    const given = typeof inputs === "string" && inputs && text?.startsWith(inputs) ? inputs : "";
    return h("p", { class: "text" }, given ? h("span", { class: "given" }, given) : null, text?.slice(given.length) ?? "(nothing)");
  });
}

function chat(messages) {
  const said = (content) => (typeof content === "string" ? content : JSON.stringify(content));
  return h("ol", { class: "said" }, messages.map(({ role, content }) => h("li", { class: role }, h("span", { class: "role" }, role), h("p", { class: "text" }, said(content)))));
}

function transcript({ text, chunks }) {
  const time = (seconds) => (seconds === null ? "…" : `${seconds.toFixed(2)} s`);
  const rows = (chunks ?? []).map(({ timestamp: [from, to], text: piece }) => h("tr", {}, h("td", {}, time(from)), h("td", {}, time(to)), h("td", {}, piece)));
  return [h("p", { class: "text" }, text || "(nothing was heard)"), rows.length ? h("table", {}, h("thead", {}, h("tr", {}, ["from", "to", "said"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows)) : null];
}

/** A text with marks on its pieces. Offsets count characters as Python does, which are not those of JavaScript. */
function marked(text, pieces) {
  const letters = [...text];
  const nodes = [];
  let at = 0;
  for (const { start, end, label, hue } of [...pieces].sort((a, b) => a.start - b.start)) {
    if (start < at || end <= start) continue;
    const mark = h("mark", {}, letters.slice(start, end).join(""), label ? h("span", { class: "tag" }, label) : null);
    if (hue) mark.style.setProperty("--hue", hue);
    nodes.push(letters.slice(at, start).join(""), mark);
    at = end;
  }
  return h("p", { class: "text marked" }, nodes, letters.slice(at).join(""));
}

function entities(rows, { inputs, parameters }) {
  const text = Array.isArray(inputs) ? inputs.join(parameters?.delimiter ?? " ") : inputs;
  const kind = (row) => (row.entity_group ?? row.entity).replace(/^[BIES]-/, "");
  const hues = hueOf(rows.map(kind));
  const pieces = joined(rows.map((row) => ({ start: row.start, end: row.end, label: kind(row), begins: row.entity_group || /^B-/.test(row.entity), hue: hues(kind(row)) })));
  const list = rows.map((row) => ({ label: `${row.word}  ·  ${row.entity_group ?? row.entity}`, score: row.score }));
  return [typeof text === "string" && rows[0].start !== null ? marked(text, pieces) : null, bars(list)];
}

/** Tokens that touch and have one label make one mark. */
function joined(pieces) {
  const found = [];
  for (const piece of pieces) {
    const before = found.at(-1);
    if (before && before.label === piece.label && !piece.begins && piece.start <= before.end + 1) before.end = piece.end;
    else found.push({ ...piece });
  }
  return found;
}

function spans(rows, { inputs }) {
  const context = typeof inputs?.context === "string" ? inputs.context : null;
  const list = bars(rows.map(({ answer: label, score }) => ({ label, score })));
  return [list, context === null ? null : marked(context, rows)];
}

function hueOf(labels) {
  const known = [...new Set(labels)];
  return (label) => HUES[known.indexOf(label) % HUES.length];
}

// Tables and vectors

function cells({ answer, coordinates, aggregator }, { inputs }) {
  const given = inputs?.table ?? {};
  const names = Array.isArray(given) ? Object.keys(given[0] ?? {}) : Object.keys(given);
  const height = Array.isArray(given) ? given.length : Math.max(0, ...Object.values(given).map((column) => column.length));
  const cell = (i, j) => (Array.isArray(given) ? given[i][names[j]] : given[names[j]][i]);
  const chosen = new Set(coordinates.map(([i, j]) => `${i},${j}`));
  const row = (i) => h("tr", {}, names.map((_, j) => h("td", {}, chosen.has(`${i},${j}`) ? h("mark", {}, `${cell(i, j)}`) : `${cell(i, j) ?? ""}`)));
  return [
    h("p", { class: "text" }, answer, aggregator && aggregator !== "NONE" ? h("span", { class: "tag" }, aggregator) : null),
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, Array.from({ length: height }, (_, i) => row(i))))),
  ];
}

function vectors(answer) {
  const shape = [];
  for (let inner = answer; Array.isArray(inner); inner = inner[0]) shape.push(inner.length);
  let rows = answer;
  while (Array.isArray(rows[0]?.[0])) rows = rows[0];
  if (!Array.isArray(rows[0])) rows = [rows];
  const first = rows[0].slice(0, 8).map((value) => value.toFixed(4)).join("  ");
  return [
    h("p", {}, h("span", { class: "shape" }, shape.join(" × ")), ` ${shape.length > 1 ? "numbers" : "numbers, one vector"}`),
    strip(rows),
    h("p", { class: "code" }, `${first}${rows[0].length > 8 ? "  …" : ""}`),
  ];
}

/** A row of colours for each vector: one hue below zero, another above. */
function strip(rows) {
  const some = rows.slice(0, 256);
  const width = Math.max(...some.map((row) => row.length));
  const most = some.reduce((found, row) => row.reduce((inner, value) => Math.max(inner, Math.abs(value)), found), 1e-9);
  const canvas = h("canvas", { width, height: some.length, class: "strip", role: "img", "aria-label": "The numbers as colours" });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, some.length);
  some.forEach((row, i) => row.forEach((value, j) => {
    const [red, green, blue] = value < 0 ? [232, 89, 12] : [66, 99, 235];
    pixels.data.set([red, green, blue, 255 * Math.sqrt(Math.abs(value) / most)], 4 * (i * width + j));
  }));
  context.putImageData(pixels, 0, 0);
  canvas.style.height = `${Math.min(320, Math.max(28, 10 * some.length))}px`;
  return canvas;
}

// Pictures

function picture(base64, words = "The answer") {
  return h("div", { class: "picture" }, shown(base64, "image", words), h("a", { href: `data:image/png;base64,${base64}`, download: "answer.png" }, "Download"));
}

function depth({ depth: base64, predicted_depth: rows }) {
  const all = rows.flat();
  const ends = all.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
  return [picture(base64, "Depth: near and far as shades of gray"), h("p", { class: "help" }, `${rows[0]?.length} × ${rows.length} pixels, from `, figure(ends[0]), " to ", figure(ends[1]))];
}

/** The picture that was sent. */
const sent = ({ inputs }) => (typeof inputs === "string" ? inputs : inputs?.image);

function over(asked, layers) {
  const base64 = sent(asked);
  return h("div", { class: "over" }, typeof base64 === "string" ? shown(base64, "image", "The picture that was sent") : null, layers);
}

function boxed(rows, asked) {
  const hues = hueOf(rows.map((row) => row.label));
  const layer = h("div", { class: "boxes" });
  const figureNode = over(asked, layer);
  const image = figureNode.querySelector("img");
  const frames = rows.map(({ label, box }) => {
    const frame = h("div", { class: "box" }, h("span", { class: "tag" }, label));
    frame.style.setProperty("--hue", hues(label));
    return [frame, box];
  });
  image?.decode().then(() => {
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    for (const [frame, { xmin, ymin, xmax, ymax }] of frames) {
      Object.assign(frame.style, {
        left: `${(100 * xmin) / width}%`, top: `${(100 * ymin) / height}%`,
        width: `${(100 * (xmax - xmin)) / width}%`, height: `${(100 * (ymax - ymin)) / height}%`,
      });
    }
    layer.append(...frames.map(([frame]) => frame));
  }, () => {});
  return [image ? figureNode : null, bars(rows)];
}

function overlaid(rows, asked) {
  const legend = h("ul", { class: "legend" });
  const layers = rows.map(({ label, score, mask }, i) => {
    const hue = HUES[i % HUES.length];
    const layer = h("canvas", { class: "mask", "aria-hidden": "true" });
    tint(layer, mask, hue);
    const box = h("input", { type: "checkbox", checked: true, onchange: () => (layer.hidden = !box.checked) });
    const swatch = h("span", { class: "swatch" });
    swatch.style.setProperty("--hue", hue);
    legend.append(h("li", {}, h("label", {}, box, swatch, label), figure(score)));
    return layer;
  });
  return [over(asked, layers), legend];
}

/** Paint a mask, white where it holds, in a colour. */
async function tint(canvas, mask, hue) {
  const image = new Image();
  image.src = `data:image/png;base64,${mask}`;
  await image.decode();
  Object.assign(canvas, { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const colour = [1, 3, 5].map((at) => parseInt(hue.slice(at, at + 2), 16));
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set([...colour, pixels.data[i] * 0.6], i);
  context.putImageData(pixels, 0, 0);
}

function matched(rows, { inputs }) {
  const pair = Array.isArray(inputs) ? inputs : inputs?.images;
  const place = h("div", { class: "matches" });
  const images = (pair ?? []).map((base64) => shown(base64, "image"));
  Promise.all(images.map((image) => image.decode())).then(() => place.append(lines(rows, images)), () => {});
  return [place, h("p", {}, `${rows.length} matching points`)];
}

function lines(rows, images) {
  const [left, right] = images;
  const height = Math.max(left.naturalHeight, right.naturalHeight);
  const gap = left.naturalWidth / 20;
  const shift = left.naturalWidth + gap;
  const drawing = svg("svg", { viewBox: `0 0 ${shift + right.naturalWidth} ${height}`, role: "img", "aria-label": "Both pictures, their matching points joined by lines" });
  images.forEach((image, i) => drawing.append(svg("image", { href: image.src, x: i * shift, width: image.naturalWidth, height: image.naturalHeight })));
  rows.forEach(({ keypoint_image_0: from, keypoint_image_1: to }, i) => {
    drawing.append(svg("line", { x1: from.x, y1: from.y, x2: shift + to.x, y2: to.y, stroke: HUES[i % HUES.length], "vector-effect": "non-scaling-stroke" }));
  });
  return drawing;
}
