/** Pictures, sounds and films: chosen, dropped or pasted, shown, and kept as base64. */

import { h, newId } from "./dom.js";
import { sniffed } from "./schema.js";

const NAMES = { image: "picture", audio: "sound", video: "film", "*": "file" };
const ENDINGS = {
  "image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp", "image/bmp": "bmp",
  "audio/wav": "wav", "audio/mpeg": "mp3", "audio/flac": "flac", "audio/ogg": "ogg", "video/mp4": "mp4",
  "video/webm": "webm", "video/x-yuv4mpeg": "y4m",
};
const SHOWN = { image: "img", audio: "audio", video: "video" };
const UNSHOWN = ["video/x-yuv4mpeg"];

/** The names of chosen files by their base64, for the code that is shown. */
const chosen = new Map();

/** A name for a file that is known by its base64 only. */
export function fileName(base64) {
  const type = sniffed(base64) ?? "";
  return chosen.get(base64) ?? `${NAMES[type.split("/")[0]] ?? "file"}.${ENDINGS[type] ?? "bin"}`;
}

/** An editor for a file. */
export function mediaField(medium, label) {
  const id = newId();
  const noun = NAMES[medium] ?? "file";
  const input = h("input", { type: "file", id, accept: SHOWN[medium] ? `${medium}/*` : null, onchange: () => take(input.files) });
  const about = h("span", { class: "help" }, `No ${noun} chosen.`);
  const preview = h("div", { class: "preview" });
  const node = h("div", { class: "field file" },
    h("label", { for: id }, label),
    h("div", { class: "drop" }, preview, h("div", { class: "row" }, input, h("span", { class: "help" }, `or drop a ${noun} here`)), about));
  let kept;

  async function take([file]) {
    if (!file) return;
    const base64 = await encoded(file);
    chosen.set(base64, file.name);
    write(base64);
  }

  function write(base64) {
    kept = typeof base64 === "string" && base64 ? base64 : undefined;
    about.textContent = kept ? `${fileName(kept)}, ${size(kept)}` : `No ${noun} chosen.`;
    preview.replaceChildren(...(kept ? [shown(kept, medium, label)] : []));
  }

  const zone = node.querySelector(".drop");
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take(event.dataTransfer.files);
  });
  return { node, read: () => kept, write };
}

/** An element that shows or plays a file in base64, or says that a browser cannot. */
export function shown(base64, medium, label = "") {
  const type = sniffed(base64) ?? `${medium}/*`;
  const tag = SHOWN[medium];
  if (!tag || UNSHOWN.includes(type)) return h("p", { class: "help" }, "Browsers cannot show this kind of file.");
  const src = base64.startsWith("data:") || /^https?:/.test(base64) ? base64 : `data:${type};base64,${base64}`;
  return h(tag, tag === "img" ? { src, alt: label } : { src, controls: true, "aria-label": label });
}

/** How large a file in base64 is. */
export function size(base64) {
  const bytes = Math.floor((base64.replace(/=+$/, "").length * 3) / 4);
  const units = ["bytes", "kB", "MB"];
  const power = bytes < 1000 ? 0 : bytes < 1e6 ? 1 : 2;
  return `${(bytes / 1000 ** power).toFixed(power && bytes < 1e7 ? 1 : 0)} ${units[power]}`;
}

/** A file or a blob as base64. */
export async function encoded(blob) {
  const reader = new FileReader();
  const read = new Promise((resolve, reject) => {
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
  });
  reader.readAsDataURL(blob);
  return (await read).split(",", 2)[1] ?? "";
}
