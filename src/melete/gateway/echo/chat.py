"""OpenAI's chat completions: how a request is read and an answer written, whole and as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from melete.gateway.echo.answer import Answer, Frame, data, halves
from melete.gateway.echo.asked import Asked, field, length_of, pieces, text_of


def read(body: dict[str, Any]) -> Asked:
    """Reads a request.

    Raises:
        BadRequestError: the API would refuse it.
    """
    messages = [m for m in field(body, "messages", list) if isinstance(m, dict)]
    last = next((m for m in reversed(messages) if m.get("role") in ("user", "tool", "function")), {})
    options = field(body, "stream_options", dict, required=False) or {}
    tools = field(body, "tools", list, required=False) or []
    return Asked(
        wire="chat",
        model=field(body, "model", str),
        stream=bool(body.get("stream")),
        role="user" if last.get("role") == "user" else "tool",
        last=text_of(last.get("content")),
        system="\n".join(
            text_of(m.get("content")) for m in messages if m.get("role") in ("system", "developer")
        ),
        tools=tuple(
            str(tool["function"].get("name"))
            for tool in tools
            if isinstance(tool, dict) and isinstance(tool.get("function"), dict)
        ),
        turn=sum(m.get("role") == "assistant" for m in messages),
        tokens=length_of(body, "messages", "tools"),
        usage_wanted=bool(options.get("include_usage")),
    )


def whole(answer: Answer, asked: Asked) -> dict[str, Any]:
    """The answer as one body."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.thinking:
        message["reasoning_content"] = answer.thinking
    if answer.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
    return _head(answer, "chat.completion") | {"choices": [choice]} | _usage(answer)


def stream(answer: Answer, asked: Asked) -> Iterator[Frame]:
    """The answer as events: the role, the content, the calls, the end, the usage if it was asked for."""
    head = _head(answer, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None, content: bool = True) -> Frame:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return Frame(data(head | {"choices": [choice]}).data, content)

    yield chunk({"role": "assistant", "content": ""}, content=False)
    for piece in pieces(answer.thinking):
        yield chunk({"reasoning_content": piece})
    for piece in pieces(answer.text):
        yield chunk({"content": piece})
    for index, call in enumerate(answer.calls):
        opening = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
        yield chunk({"tool_calls": [{"index": index, **opening}]})
        for part in halves(call.arguments):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield chunk({}, answer.finish, content=False)
    if asked.usage_wanted and answer.counts is not None:
        yield data(head | {"choices": []} | _usage(answer))
    yield Frame(b"data: [DONE]\n\n")


def problem(status: int, type_: str | None, code: str | None, message: str) -> dict[str, Any]:
    """An error's body."""
    usual = {
        401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error",
    }  # fmt: skip
    named = type_ or usual.get(status, "server_error" if status > 500 else "invalid_request_error")
    return {"error": {"message": message, "type": named, "param": None, "code": code}}


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": kind,
        "created": answer.created_s,
        "model": answer.model,
    }


def _usage(answer: Answer) -> dict[str, Any]:
    if answer.counts is None:
        return {}
    counts = answer.counts
    return {
        "usage": {
            "prompt_tokens": counts.input,
            "completion_tokens": counts.output,
            "total_tokens": counts.input + counts.output,
            "prompt_tokens_details": {"cached_tokens": counts.cached},
            "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
        }
    }
