// Asks this server, and signs in first where the cookie has run out: the form behind the dialog stays as it is, and the
// request is made again.

/** @type {Promise<boolean> | null} */
let signing = null;

/**
 * As `fetch`; an answer 401 opens the sign-in dialog, and the request is repeated after it.
 * @param {RequestInfo | URL} input
 * @param {RequestInit} [init]
 * @param {() => void} [waits] told before the dialog opens, to stop a timer
 * @returns {Promise<Response>}
 */
export async function signedIn(input, init, waits) {
  const answer = await fetch(input, init);
  if (answer.status !== 401) return answer;
  waits?.();
  return (await signIn()) ? fetch(input, init) : answer;
}

/**
 * Asks the API for JSON.
 * @param {string} path of this server, such as `/api/v1/jobs`
 * @param {{method?: string, json?: any, signal?: AbortSignal}} [options] `json` is the body
 * @returns {Promise<any>} what it answers; null where it answers nothing
 * @throws {Refused} it answers with an error, with its message
 */
export async function ask(path, options) {
  const answer = await answered(path, options);
  return answer.status === 204 ? null : answer.json().catch(() => null);
}

/** As `ask`, for an answer that is read as it comes. @returns {Promise<Response>} */
export async function answered(path, { method = "GET", json, signal } = {}) {
  const headers = { accept: "application/json" };
  const body = json === undefined ? undefined : JSON.stringify(json);
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await signedIn(path, { method, headers, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { message: "The server cannot be reached. Is it running?" });
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  throw new Refused(answer.status, said?.error ?? { message: `The server answered ${answer.status}.` });
}

/** What the API refused: `status`, and `error` with its message, param and code. */
export class Refused extends Error {
  /** @param {number} status @param {{message: string, param?: string, code?: string}} error */
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.error = error;
  }
}

/** Opens the sign-in dialog; true after a sign-in, false if it was closed. */
function signIn() {
  return (signing ??= new Promise((resolve) => {
    /** @type {HTMLDialogElement} */
    const dialog = document.querySelector("[data-part=sign-in]");
    const form = dialog.querySelector("form");
    const problem = dialog.querySelector("[role=alert]");
    let inside = false;
    form.onsubmit = async (event) => {
      event.preventDefault();
      const answer = await fetch("/login", {
        method: "POST", headers: { accept: "application/json" }, body: new URLSearchParams(new FormData(form)),
      }).catch(() => null);
      inside = Boolean(answer?.ok);
      if (inside) return dialog.close();
      const said = await answer?.json().catch(() => null);
      problem.textContent = said?.error?.message ?? "The server cannot be reached. Is it running?";
      problem.hidden = false;
    };
    dialog.onclose = () => {
      form.reset();
      problem.hidden = true;
      signing = null;
      resolve(inside);
    };
    dialog.showModal();
  }));
}
