"""Where the terminal's answers come from: a model in this process, or any OpenAI-compatible server.

Both give the same `Delta`s for a list of OpenAI messages, so the chat does not know which one it talks to. The remote
one uses the standard library alone: a chat over ssh should start in a blink.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

from melete.errors import ConfigError, MeleteError, ServerError, UnknownNameError
from melete.serve.models import ServedModel
from melete.serve.output import Delta

TIMEOUT_S = 600


class Backend(Protocol):
    """Something that answers."""

    name: str
    dropped: int
    """Messages that the last answer's prompt left out, because the conversation had outgrown the context."""

    def stream(self, fields: dict[str, Any]) -> Generator[Delta, None, None]:
        """Deltas of the answer to a chat request (`messages`, `tools`, sampling); closing it early stops the model.

        Raises:
            MeleteError: the request was refused or the model failed.
        """
        ...


class LocalBackend:
    """A model in this process; its engine must have been started."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self.name = model.id
        self.dropped = 0

    def stream(self, fields: dict[str, Any]) -> Generator[Delta, None, None]:
        """See `Backend.stream`."""
        from pydantic import ValidationError

        from melete.serve import problems
        from melete.serve.plan import plan_chat
        from melete.serve.schema import ChatRequest

        try:
            request = ChatRequest.model_validate({**fields, "model": self.name, "truncation": "auto"})
            plan = plan_chat(self._model, request)
        except ValidationError as error:
            raise ConfigError(problems.from_validation(ChatRequest, error).message) from error
        except problems.Problem as problem:
            raise ConfigError(problem.message) from problem
        choice, self.dropped = plan.choices[0], plan.dropped
        assert choice.parser is not None
        generation = self._model.engine.submit(choice.prompt_ids, choice.sampling)
        try:
            for token in generation:
                yield from choice.parser.feed([token])
            yield from choice.parser.finish()
        finally:
            generation.cancel()
        if generation.finish_reason == "error":
            raise MeleteError(f"The model failed: {generation.error}")


class RemoteBackend:
    """A model behind a URL.

    Args:
        url: of the server, with or without `/v1`.
        model: its id there; None takes the first that the server lists.
        token: sent as bearer token if given.

    Raises:
        ServerError: no server answers there, or it refuses the token.
        UnknownNameError: the server has no such model.
    """

    def __init__(self, url: str, model: str | None = None, token: str | None = None) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is not a URL.", allowed="Such as http://127.0.0.1:8675")
        self._url = f"{parts.scheme}://{parts.netloc}"
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._connection_class: type[http.client.HTTPConnection] = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._address = parts.netloc.rpartition("@")[2]
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        rows = {row["id"]: row for row in json.load(self._send("GET", "/v1/models"))["data"]}
        if model is not None and model not in rows:
            raise UnknownNameError("model at this server", model, rows)
        self.name = model or next(iter(rows))
        self.dropped = 0
        # Other servers refuse the field.
        self._extras = {"truncation": "auto"} if rows[self.name].get("owned_by") == "melete" else {}

    def stream(self, fields: dict[str, Any]) -> Generator[Delta, None, None]:
        """See `Backend.stream`."""
        body = {**fields, **self._extras, "model": self.name, "stream": True}
        response = self._send("POST", "/v1/chat/completions", body)
        self.dropped = 0
        try:
            for line in response:
                data = line.decode("utf-8").strip().removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                if data:
                    chunk = json.loads(data)
                    self.dropped = chunk.get("dropped_messages", self.dropped)
                    yield from _deltas(chunk)
        except (OSError, ValueError) as error:
            raise ServerError(f"The answer from {self._url} broke off ({error}).") from error
        finally:
            response.close()

    def _send(self, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        connection = self._connection_class(self._address, timeout=TIMEOUT_S)
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, self._path + path, data, self._headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(
                f"No server answers at {self._url} ({error}).", next_step="Start one with: melete serve"
            ) from error
        if response.status == 200:
            return response
        try:
            message = json.load(response)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = f"{self._url} answered {response.status} {response.reason}."
        hint = "Set MELETE_TOKEN to the server's token." if response.status == 401 else None
        raise ServerError(message, next_step=hint)


def _deltas(chunk: dict[str, Any]) -> Iterator[Delta]:
    if "error" in chunk:
        raise ServerError(str(chunk["error"].get("message", chunk["error"])))
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        if delta.get("content"):
            yield Delta(delta["content"])
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            yield Delta(function.get("arguments") or "", call["index"], call.get("id"), function.get("name"))
