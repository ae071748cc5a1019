/** Reads an answer while it comes. */

/** Hand each piece of text to `each`, as the server sends it; what has come by then when it ends. */
export async function readText(response, each) {
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    text += decoder.decode(value, { stream: !done });
    if (done) return text;
    each(text);
  }
}

/** What a stream says so far: `said`, the words in its events or lines, and `failure`, how it broke. */
export function words(text, contentType) {
  const pieces = contentType === "text/event-stream" ? events(text) : contentType.includes("jsonlines") ? lines(text) : null;
  if (!pieces) return { said: text };
  const read = pieces.map(piece);
  return { said: read.map(({ said }) => said ?? "").join(""), failure: read.find(({ failure }) => failure)?.failure };
}

/** The data of server-sent events, of those that have ended. */
function events(text) {
  const ended = text.replaceAll("\r\n", "\n").split("\n\n").slice(0, -1);
  return ended.map((event) => event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, "")).join("\n"));
}

/** The lines that have ended. */
const lines = (text) => text.split("\n").slice(0, -1).filter(Boolean);

/** The words in one piece of a stream, by the forms that generating servers have. */
function piece(data) {
  if (data === "[DONE]") return {};
  let value;
  try {
    value = JSON.parse(data);
  } catch {
    return { said: data };
  }
  if (typeof value === "string") return { said: value };
  if (value?.error) return { failure: value.error.message ?? `${value.error}` };
  return { said: value?.token?.text ?? value?.chunk ?? value?.choices?.[0]?.delta?.content ?? value?.choices?.[0]?.text };
}
