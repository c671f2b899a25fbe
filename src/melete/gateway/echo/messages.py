"""Anthropic's messages: how a request is read and an answer written, whole and as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from melete.gateway.echo.answer import Answer, Call, Frame, event, halves
from melete.gateway.echo.asked import Asked, field, length_of, pieces, text_of

STOP = {
    "stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal",
}  # fmt: skip


def read(body: dict[str, Any]) -> Asked:
    """Reads a request.

    Raises:
        BadRequestError: the API would refuse it.
    """
    messages = [m for m in field(body, "messages", list) if isinstance(m, dict)]
    last = next((m for m in reversed(messages) if m.get("role") == "user"), {})
    tools = field(body, "tools", list, required=False) or []
    return Asked(
        wire="messages",
        model=field(body, "model", str),
        stream=bool(body.get("stream")),
        role="tool" if _has_result(last.get("content")) else "user",
        last=text_of(last.get("content")),
        system=text_of(body.get("system")),
        tools=tuple(str(tool.get("name")) for tool in tools if isinstance(tool, dict)),
        turn=sum(m.get("role") == "assistant" for m in messages),
        tokens=length_of(body, "system", "messages", "tools"),
    )


def whole(answer: Answer, asked: Asked) -> dict[str, Any]:
    """The answer as one body."""
    blocks: list[dict[str, Any]] = []
    if answer.thinking:
        blocks.append({"type": "thinking", "thinking": answer.thinking, "signature": "echo"})
    if answer.text:
        blocks.append({"type": "text", "text": answer.text})
    blocks += [{**_tool_use(call), "input": json.loads(call.arguments or "{}")} for call in answer.calls]
    end = {"content": blocks, "stop_reason": STOP[answer.finish], "usage": _usage(answer)}
    return _head(answer) | end


def stream(answer: Answer, asked: Asked) -> Iterator[Frame]:
    """The answer as events: the start with the tokens read, blocks, the end with the tokens written."""
    start = {**_head(answer), "usage": {**_usage(answer), "output_tokens": 1}}
    yield event("message_start", {"message": start})
    yield event("ping", {})
    index = 0
    if answer.thinking:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(answer.thinking)]
        deltas.append({"type": "signature_delta", "signature": "echo"})
        yield from _block(index, {"type": "thinking", "thinking": "", "signature": ""}, deltas)
        index += 1
    if answer.text:
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(answer.text)]
        yield from _block(index, {"type": "text", "text": ""}, deltas)
        index += 1
    for call in answer.calls:
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in halves(call.arguments)]
        yield from _block(index, _tool_use(call), deltas)
        index += 1
    delta = {"stop_reason": STOP[answer.finish], "stop_sequence": None}
    yield event("message_delta", {"delta": delta, "usage": _usage(answer)})
    yield event("message_stop", {})


def problem(status: int, type_: str | None, code: str | None, message: str) -> dict[str, Any]:
    """An error's body."""
    usual = {
        401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error",
        500: "api_error", 529: "overloaded_error",
    }  # fmt: skip
    named = type_ or usual.get(status, "api_error" if status > 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": named, "message": message}}


def _block(index: int, opening: dict[str, Any], deltas: list[dict[str, str]]) -> Iterator[Frame]:
    yield event("content_block_start", {"index": index, "content_block": opening})
    for delta in deltas:
        yield event("content_block_delta", {"index": index, "delta": delta}, content=True)
    yield event("content_block_stop", {"index": index})


def _has_result(content: Any) -> bool:
    parts = content if isinstance(content, list) else []
    return any(isinstance(part, dict) and part.get("type") == "tool_result" for part in parts)


def _tool_use(call: Call) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id.replace("call_", "toolu_"), "name": call.name, "input": {}}


def _head(answer: Answer) -> dict[str, Any]:
    return {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _usage(answer: Answer) -> dict[str, int]:
    """Anthropic counts what was read from a cache, or written to it, beside the other input and not within."""
    if answer.counts is None:
        return {"input_tokens": 0, "output_tokens": 0}
    counts = answer.counts
    return {
        "input_tokens": max(0, counts.input - counts.cached - counts.cache_write),
        "cache_read_input_tokens": counts.cached,
        "cache_creation_input_tokens": counts.cache_write,
        "output_tokens": counts.output,
    }
