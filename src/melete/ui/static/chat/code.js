// What a conversation is outside of this page: the request as curl and Python, the text as JSON and Markdown.

import { path, plain, title } from "./store.js";

/** The next request of a pane as a command. @param {any} pane a <chat-pane> */
export function curl(pane) {
  const { url, body } = asked(pane);
  const text = JSON.stringify(body, null, 1).replaceAll("'", `'\\''`);
  return `# Where a token is asked for, add: -H "Authorization: Bearer $MELETE_TOKEN"\ncurl ${url} -d '${text}'`;
}

/** The next request of a pane as a program. @param {any} pane a <chat-pane> */
export function python(pane) {
  const { url, body } = asked(pane);
  if (pane.agent) {
    return `import httpx\n\nstep = httpx.post("${url}", json=${literal(body)}, timeout=60).json()\n`
      + 'print(step["verdict"], step["execute"], step["due"])  # your program executes, and posts the result';
  }
  const { truncation, ...rest } = body;
  const fields = Object.entries(rest).map(([name, value]) => `    ${name}=${literal(value, 1)},`).join("\n");
  return `from openai import OpenAI\n\nclient = OpenAI(base_url="${location.origin}/v1", api_key="none")  # or your token\n`
    + `stream = client.chat.completions.create(\n${fields}\n    extra_body={"truncation": "${truncation}"},\n    stream=True,\n)\n`
    + 'for chunk in stream:\n    print(chunk.choices[0].delta.content or "", end="")';
}

/** A conversation with the messages that are shown, and what it was sampled with. */
export function asJson(conversation, settings) {
  const panes = conversation.panes.map((pane) => ({ model: pane.model, messages: plain(path(pane)) }));
  return JSON.stringify({ id: conversation.id, title: title(conversation), settings, panes }, null, 1);
}

/** The same to read. */
export function asMarkdown(conversation) {
  const said = ({ role, content, tool_calls: calls = [] }) => [
    `**${role === "user" ? "You" : role === "tool" ? "Result" : "Model"}**`, content,
    ...calls.map((call) => `\`${call.function.name} ${call.function.arguments}\``),
  ].filter(Boolean).join("\n\n");
  const panes = conversation.panes.map((pane) => [`## ${pane.model}`, ...path(pane).map(said)].join("\n\n"));
  return `# ${title(conversation)}\n\n${panes.join("\n\n")}\n`;
}

/** Lets the browser save a text as a file. */
export function download(name, type, text) {
  const link = Object.assign(document.createElement("a"), { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
  link.click();
  URL.revokeObjectURL(link.href);
}

function asked(pane) {
  if (!pane.agent) return { url: `${location.origin}/v1/chat/completions`, body: pane.request() };
  const messages = plain(path(pane.pane));
  const body = messages.length ? { messages } : { observation: "Hello" };
  return { url: `${location.origin}/v1/agents/${pane.pane.model}/act`, body };
}

/** A value as Python writes it. */
function literal(value, depth = 0) {
  const inside = " ".repeat(4 * (depth + 1));
  const [open, close, items] = Array.isArray(value)
    ? ["[", "]", value.map((one) => literal(one, depth + 1))]
    : value && typeof value === "object"
      ? ["{", "}", Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one, depth + 1)}`)]
      : ["", "", null];
  if (!items) return value === null ? "None" : typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value);
  const line = `${open}${items.join(", ")}${close}`;
  return line.length < 90 && !line.includes("\n") ? line : `${open}\n${items.map((one) => `${inside}${one},\n`).join("")}${" ".repeat(4 * depth)}${close}`;
}
