"""Any OpenAI-compatible URL behind the evaluation protocol: many requests at once, few retries, plain errors.

Conversations go to `/v1/chat/completions`, texts to `/v1/completions`. Scoring a continuation needs a server that
gives the log-probabilities of a prompt (`echo` with `logprobs`, as vLLM does); on any other it is a
`NotOfferedError`, which skips the task that asked for it. A request is tried a few times where trying again may help
(no connection, 429, 5xx).

Some servers refuse `temperature`, `seed` or `max_tokens` for some models: what was refused is left out of further
requests (`max_tokens` is called `max_completion_tokens` then) and said in `notes`. A conversation that does not fit
the model's context is answered by an empty turn, counted in `notes`.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

from melete.errors import ConfigError, MissingExtraError, NotOfferedError, ServerError, UnknownNameError
from melete.evals.model import Generate, ScoreRequest, ScoreResult
from melete.records import Conversation, Turn

try:
    import httpx
except ModuleNotFoundError as error:
    raise MissingExtraError("httpx", "agents") from error

AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})
LONGEST_PAUSE_S = 30.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DROPPABLE = ("temperature", "seed", "stop")
T = TypeVar("T")
Asked = TypeVar("Asked")


def key(url: str, key_env: str, token: str | None) -> str | None:
    """The key to send, read from the environment and kept nowhere; our own token goes to this machine only.

    Args:
        url: of the server.
        key_env: variable that holds its key; empty is `token` on this machine and no key elsewhere.
        token: of our own server.

    Raises:
        ConfigError: the variable that should hold it is not set.
    """
    if not key_env:
        return token if urlsplit(url).hostname in LOOPBACK else None
    if key_env not in os.environ:
        raise ConfigError(
            f"key_env: the environment variable {key_env} is not set.",
            next_step=f"Set it to the server's key: export {key_env}=…",
        )
    return os.environ[key_env]


class UrlModel:
    """Implements `melete.evals.model.LanguageModel`.

    Args:
        url: of the server, with or without `/v1`.
        model: its id there; empty takes the only one that the server lists.
        key: sent as bearer token; never part of a message.
        concurrency: requests at once.
        tries: how often one request is sent at most.
        timeout_s: longest wait for one answer.
        pause_s: wait before the second try; it doubles from try to try.

    Raises:
        ConfigError: the URL is none.
        ServerError: nothing answers there, or it refuses the key.
        UnknownNameError: the server has no such model; its models are listed.
    """

    def __init__(
        self,
        url: str,
        model: str = "",
        key: str | None = None,
        *,
        concurrency: int = 8,
        tries: int = 4,
        timeout_s: float = 300.0,
        pause_s: float = 1.0,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.notes: list[str] = []
        self._concurrency, self._tries, self._pause_s = concurrency, tries, pause_s
        self._left_out: set[str] = set()
        self._too_long = 0
        self._lock = threading.Lock()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._client = httpx.Client(base_url=f"{self.url}/v1/", headers=headers, timeout=timeout_s)
            if self._client.base_url.scheme not in ("http", "https") or not self._client.base_url.host:
                raise ValueError("no host")
        except (httpx.InvalidURL, ValueError) as error:
            raise ConfigError(f"{url!r} is not a URL.", allowed="Such as http://127.0.0.1:8675") from error
        self._name = self._known_model(model)

    @property
    def name(self) -> str:
        """The model's id at the server."""
        return self._name

    def generate(self, prompts: Sequence[str], how: Generate) -> list[str]:
        """Continues plain texts."""

        def one(prompt: str) -> str:
            body = {"model": self._name, "prompt": prompt, **_sampling(how)}
            choice = self._answer("completions", body)
            return "" if choice is None else str(choice.get("text") or "")

        return self._many(one, prompts)

    def chat(self, conversations: Sequence[Conversation], how: Generate) -> list[Turn]:
        """The next turns, with the tool calls that the server read from them."""

        def one(conversation: Conversation) -> Turn:
            body = {"model": self._name, **conversation.to_openai(), **_sampling(how)}
            choice = self._answer("chat/completions", body)
            return Turn("assistant") if choice is None else _turn(choice["message"])

        return self._many(one, conversations)

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """Scores continuations by the log-probabilities of the prompt that holds them."""

        def one(request: ScoreRequest) -> ScoreResult:
            text = request.context + request.continuation
            body = {"model": self._name, "prompt": text, "max_tokens": 1, "echo": True, "logprobs": 1}
            choice = self._answer(
                "completions", body | {"temperature": 0.0}, asks="log-probabilities of a prompt"
            )
            if choice is None:
                raise NotOfferedError(f"A text to score does not fit the context of {self._name}.")
            return _scored(request, text, choice, self.url)

        return self._many(one, requests)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _many(self, one: Callable[[Asked], T], asked: Sequence[Asked]) -> list[T]:
        """Answers in the order of the questions; the first error ends it, without asking the rest."""
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="melete-url") as pool:
            futures = [pool.submit(one, question) for question in asked]
            try:
                results = [future.result() for future in futures]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        if self._too_long:
            self._note(f"{self._too_long} prompts did not fit the model's context and count as wrong")
        return results

    def _answer(self, path: str, body: dict[str, Any], asks: str = "") -> dict[str, Any] | None:
        """The first choice of the answer; None where the prompt does not fit the model's context."""
        while True:
            with self._lock:
                sent = _without(body, self._left_out)
            response = self._send("POST", path, sent)
            if response.status_code == 200:
                return self._choice(response, "message" if path.startswith("chat") else "text")
            problem = _problem(response)
            if _about_context(problem):
                with self._lock:
                    self._too_long += 1
                return None
            refused = _refused(problem, sent) if response.status_code == 400 and not asks else None
            if refused is None:
                raise self._failure(response, problem, body, asks)
            with self._lock:
                self._left_out.add(refused)
            self._note(f"{self.url} refuses {refused!r} for {self._name}; it was left out")

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """One request, tried again where that may help.

        Raises:
            ServerError: nothing answered.
        """
        pause_s = self._pause_s
        for left in range(self._tries - 1, -1, -1):
            try:
                response = self._client.request(method, path, json=body)
            except httpx.HTTPError as error:
                if not left or (isinstance(error, httpx.ConnectError) and body is None):
                    raise ServerError(
                        f"No server answers at {self.url} ({type(error).__name__}: {error}).",
                        next_step="Is the URL right, and the server up? Ours is started with: melete serve",
                    ) from error
            else:
                if response.status_code not in AGAIN or not left:
                    return response
                pause_s = max(pause_s, _retry_after_s(response))
            time.sleep(min(pause_s, LONGEST_PAUSE_S) * random.uniform(0.8, 1.2))
            pause_s *= 2
        raise AssertionError("the last try returns or raises")

    def _known_model(self, model: str) -> str:
        response = self._send("GET", "models")
        if response.status_code in (401, 403):
            raise self._failure(response, _problem(response), {}, "")
        rows = self._read(response).get("data", []) if response.status_code == 200 else []
        known = [str(row["id"]) for row in rows if isinstance(row, dict) and "id" in row]
        if model and (model in known or not known):
            return model
        if not model and len(known) == 1:
            return known[0]
        if not known:
            raise ConfigError(f"{self.url} does not list its models.", next_step="Name one: --model NAME")
        if not model:
            raise ConfigError(
                f"{self.url} has several models.",
                allowed=f"Known: {', '.join(sorted(known)[:24])}.",
                next_step="Name one: --model NAME",
            )
        raise UnknownNameError(f"model at {self.url}", model, known)

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        try:
            value = response.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise self._odd(response)
        return value

    def _choice(self, response: httpx.Response, part: str) -> dict[str, Any]:
        choices = self._read(response).get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(first, dict) or (part == "message" and not isinstance(first.get(part), dict)):
            raise self._odd(response)
        return first

    def _odd(self, response: httpx.Response) -> ServerError:
        return ServerError(
            f"{response.request.url} answered something that is no completion: {response.text[:120]!r}.",
            next_step="Is it an OpenAI-compatible API?",
        )

    def _failure(
        self, response: httpx.Response, problem: dict[str, Any], body: dict[str, Any], asks: str
    ) -> ServerError:
        status, said = response.status_code, problem["message"]
        if status in (401, 403):
            return ServerError(
                f"{self.url} refuses the key ({status}): {said}",
                next_step="Put the key into an environment variable and name that: --key-env OPENAI_API_KEY",
            )
        if asks or (status in (404, 405) and str(response.request.url).endswith("/v1/completions")):
            what = asks or "plain completions"
            return NotOfferedError(
                f"{self.url} does not offer {what} ({status}): {said}",
                allowed="Tasks that converse can be run there: bfcl, toolcalls, gsm8k, humaneval.",
            )
        if body.get("tools") and status in (400, 422, 501) and "tool" in said.lower():
            return NotOfferedError(f"{self._name} at {self.url} does not take tools ({status}): {said}")
        return ServerError(f"{self.url} answered {status}: {said}")

    def _note(self, text: str) -> None:
        with self._lock:
            kept = [note for note in self.notes if note.split(" ", 1)[-1] != text.split(" ", 1)[-1]]
            self.notes = [*kept, text]


def _sampling(how: Generate) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "max_tokens": how.max_tokens, "temperature": how.temperature, "seed": how.seed,
    }  # fmt: skip
    return fields | ({"stop": list(how.stop)} if how.stop else {})


def _without(body: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    sent = {key: value for key, value in body.items() if key not in left_out}
    if "max_tokens" in left_out and "max_tokens" in body:
        sent["max_completion_tokens"] = body["max_tokens"]
    return sent


def _refused(problem: dict[str, Any], sent: dict[str, Any]) -> str | None:
    """The sampling field that a 400 is about, if it is one that can be left out."""
    for field in ("max_tokens", *DROPPABLE):
        named = problem.get("param") == field or (
            problem.get("param") is None and f"'{field}'" in problem["message"]
        )
        if named and field in sent:
            return field
    return None


def _about_context(problem: dict[str, Any]) -> bool:
    said = problem["message"].lower()
    return problem.get("code") == "context_length_exceeded" or "maximum context length" in said


def _problem(response: httpx.Response) -> dict[str, Any]:
    """The `error` object of a response in OpenAI's shape; other bodies become its `message`."""
    try:
        value = response.json()
        problem = value.get("error", value) if isinstance(value, dict) else {"message": str(value)}
    except ValueError:
        problem = {"message": response.text[:200] or response.reason_phrase}
    problem = problem if isinstance(problem, dict) else {"message": str(problem)}
    return {
        **problem,
        "message": str(problem.get("message") or problem.get("detail") or response.reason_phrase),
    }


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0


def _turn(message: dict[str, Any]) -> Turn:
    """The assistant's turn; a malformed one keeps its text only."""
    try:
        return Turn.from_openai({**message, "role": "assistant"})
    except (ValueError, AttributeError, TypeError, KeyError):
        return Turn("assistant", str(message.get("content") or ""))


def _scored(request: ScoreRequest, text: str, choice: dict[str, Any], url: str) -> ScoreResult:
    """Sums over the tokens of the echoed prompt that reach into the continuation.

    Raises:
        NotOfferedError: the server sent no log-probabilities of the prompt.
    """
    found = choice.get("logprobs") or {}
    tokens, offsets = found.get("tokens") or [], found.get("text_offset") or []
    logprobs, tops = found.get("token_logprobs") or [], found.get("top_logprobs") or []
    if not tokens or len(tokens) != len(offsets) or len(tokens) != len(logprobs):
        raise NotOfferedError(
            f"{url} sends no log-probabilities of a prompt, so nothing can be scored there."
        )
    start = len(request.context.rstrip(" "))
    inside = [
        i
        for i, offset in enumerate(offsets)
        if offset < len(text) and offset + len(tokens[i]) > start and logprobs[i] is not None
    ]
    greedy = all(i < len(tops) and tops[i] and logprobs[i] >= max(tops[i].values()) for i in inside)
    size = len(request.continuation.encode())
    return ScoreResult(sum(logprobs[i] for i in inside), greedy and bool(inside), len(inside), size)
