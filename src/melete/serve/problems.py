"""Errors as OpenAI's API spells them: `{"error": {"message", "type", "param", "code"}}` with a fitting HTTP status.

A handler raises `Problem`; the application turns it into the response. Messages hold what was found, what is allowed
and the next step, as everywhere in Melete.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class Problem(Exception):
    """An error response.

    Args:
        status: HTTP status.
        message: what was found, what is allowed, what to do.
        param: the request field that is wrong, such as `messages[0].role`.
        code: OpenAI's machine-readable code, such as `model_not_found`.
        headers: further response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON object of the response."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def to_bytes(self) -> bytes:
        """The body as JSON text."""
        return json.dumps(self.body(), ensure_ascii=False).encode("utf-8", "replace")


def model_not_found(name: str, known: Iterable[str]) -> Problem:
    """404: the request names a model that is not served here."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return Problem(
        404,
        f"The model {name!r} is not served here.{hint} Served: {', '.join(names) or 'none'}.",
        param="model",
        code="model_not_found",
    )


def context_too_long(prompt: int, wanted: int, context: int, param: str) -> Problem:
    """400: prompt and answer together do not fit into the model's context (all in tokens)."""
    return Problem(
        400,
        # The first words are OpenAI's; clients such as litellm know the error by them.
        f"This model's maximum context length is {context} tokens, but the request needs {prompt + wanted}: "
        f"{prompt} in the prompt and {wanted} for the answer. Shorten the prompt or lower max_tokens.",
        param=param,
        code="context_length_exceeded",
    )


def queue_full(retry_after_s: float) -> Problem:
    """429: the engine's queue is full; when a place should be free is in the header `Retry-After`."""
    wait_s = max(1, math.ceil(retry_after_s))
    return Problem(
        429,
        f"The server's queue is full. Try again in {wait_s} s.",
        code="queue_full",
        headers={"Retry-After": str(wait_s)},
    )


def from_validation(cls: type[BaseModel], error: ValidationError) -> Problem:
    """400 for the first problem of a request body, with the field's path as OpenAI writes it."""
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "json_invalid":
        reason = problem.get("ctx", {}).get("error", "it cannot be parsed")
        return Problem(400, f"The request body is not valid JSON: {reason}.", code="invalid_json")
    path = _path(problem["loc"])
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path, cls.model_fields, n=1, cutoff=0.6)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return Problem(
            400, f"Unrecognized request argument: {path!r}.{hint}", param=path, code="unknown_parameter"
        )
    if problem["type"] == "missing":
        return Problem(400, f"You must provide {path!r}.", param=path, code="missing_required_parameter")
    found = repr(problem.get("input"))
    found = found if len(found) <= 80 else found[:77] + "..."
    message = problem["msg"].removeprefix("Value error, ")
    return Problem(
        400, f"{path or 'body'}: {message}; found {found}.", param=path or None, code="invalid_value"
    )


def _path(loc: tuple[int | str, ...]) -> str:
    """`("messages", 0, "role")` as `messages[0].role`; the names that pydantic adds for union branches are dropped."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif (
            part.replace("_", "").isalnum() and part.islower() and part not in ("str", "int", "dict", "list")
        ):
            text += f".{part}" if text else part
    return text
