// The server's API as the page uses it. Errors of any kind arrive as an Error with a message that can be shown as it is;
// where the sign-in has run out, the shell asks for it and the request is made again.

import { answered, ask } from "../ask.js";

/** What is served: id, longest context, and the agent behind it, if any; an agent's version in use has its plain name. */
export async function served() {
  const [models, agents] = await Promise.all([ask("/v1/models"), ask("/v1/agents")]);
  const used = new Set(agents.data.map((one) => one.id));
  return models.data.filter((one) => !used.has(one.id))
    .map((one) => ({ id: one.id, context: one.max_model_len, agent: one.agent ?? "" }));
}

/** What could be loaded, the newest first: references, what they are, and what is said of them. */
export async function loadable() {
  const [agents, models] = await Promise.all([
    ask("/api/v1/deployments?limit=50"), ask("/api/v1/models?kind=llm&limit=50"),
  ]);
  return [
    ...agents.data.map((one) => ({ ref: one.name, title: one.name, note: `agent, version ${one.version}` })),
    ...models.data.filter((one) => !one.served_as.length).map(({ id, name, process, newest }) => ({
      ref: newest.id, title: name ?? id, note: `${process}, step ${newest.step} · ${size(newest.serve_bytes)}`,
    })),
    { ref: "echo", title: "echo", note: "repeats what you say; no weights, to try things" },
  ];
}

export const load = (model) => ask("/v1/models", { method: "POST", json: { model } });
export const unload = (id) => ask(`/v1/models/${encodeURIComponent(id)}`, { method: "DELETE" });
export const act = (agent, json, signal) => ask(`/v1/agents/${agent}/act`, { method: "POST", json, signal });

/** The value of an arithmetic expression, or an error text, from the server's calculator. */
export async function calculate(expression, signal) {
  return (await ask("/v1/tools/calculator", { method: "POST", json: { expression }, signal })).result;
}

/** Streams a chat completion; yields OpenAI's chunks. @param {any} request @param {AbortSignal} signal */
export async function* complete(request, signal) {
  const json = { ...request, stream: true, stream_options: { include_usage: true } };
  const response = await answered("/v1/chat/completions", { method: "POST", json, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Error("The connection to the server ended in the middle of the answer.");
      const events = (held + value).split("\n\n");
      held = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        yield chunk;
      }
    }
  } catch (error) {
    if (signal.aborted || !(error instanceof TypeError)) throw error;
    throw new Error("The server cannot be reached. Is it still running?");
  } finally {
    reader.cancel().catch(() => {});
  }
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
