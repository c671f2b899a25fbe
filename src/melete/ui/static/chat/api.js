// The server's API as the page uses it: a chat completion as an async stream of chunks, and the calculator.
// Errors of any kind arrive as an Error with a message that can be shown as it is.

/** Streams a chat completion; yields OpenAI's chunks. */
export async function* complete(request, signal) {
  const body = JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } });
  const response = await post("/v1/chat/completions", body, signal);
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
    throw signal.aborted ? error : readable(error);
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The value of an arithmetic expression, or an error text, from the server's calculator. */
export async function calculate(expression, signal) {
  const response = await post("/chat/tools/calculator", JSON.stringify({ expression }), signal);
  return (await response.json()).result;
}

async function post(path, body, signal) {
  let response;
  try {
    response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body, signal });
  } catch (error) {
    throw signal.aborted ? error : readable(error);
  }
  if (response.ok) return response;
  if (response.status === 401) location.assign("/login");
  const problem = await response.json().catch(() => null);
  throw new Error(problem?.error?.message ?? `The server answered ${response.status}.`);
}

function readable(error) {
  if (error instanceof TypeError) return new Error("The server cannot be reached. Is it still running?");
  return error;
}
