"""OpenAI's responses: how a request is read and an answer written, whole and as a stream.

A conversation that is continued by `previous_response_id` is not remembered: its turn is written into the id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from melete.gateway.echo import chat
from melete.gateway.echo.answer import Answer, Call, Frame, event, halves
from melete.gateway.echo.asked import Asked, field, length_of, pieces, text_of

BY_MODEL = ("function_call", "custom_tool_call", "reasoning", "local_shell_call")
problem = chat.problem
EMPTY: dict[str, Any] = {"content": [], "arguments": "", "input": "", "summary": [], "status": "in_progress"}
"""What an item holds when it begins, for each key that it may have."""
RESULTS = ("function_call_output", "custom_tool_call_output", "local_shell_call_output")


def read(body: dict[str, Any]) -> Asked:
    """Reads a request.

    Raises:
        BadRequestError: the API would refuse it.
    """
    given = field(body, "input", (str, list))
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    items = [item for item in items if isinstance(item, dict)]
    last: dict[str, Any] = next(
        (i for i in reversed(items) if i.get("role") == "user" or i.get("type") in RESULTS), {}
    )
    instructions = [body.get("instructions")]
    instructions += [i.get("content") for i in items if i.get("role") in ("system", "developer")]
    tools = [tool for tool in field(body, "tools", list, required=False) or [] if isinstance(tool, dict)]
    before = re.match(r"resp_t(\d+)_", field(body, "previous_response_id", str, required=False) or "")
    return Asked(
        wire="responses",
        model=field(body, "model", str),
        stream=bool(body.get("stream")),
        role="user" if last.get("role") == "user" else "tool",
        last=text_of(last),
        system="\n".join(map(text_of, instructions)),
        tools=tuple(str(tool.get("name") or tool.get("type")) for tool in tools),
        turn=_turns(items) + (int(before[1]) + 1 if before else 0),
        tokens=length_of(body, "instructions", "input", "tools"),
        free_tools=tuple(str(tool.get("name")) for tool in tools if tool.get("type") == "custom"),
    )


def whole(answer: Answer, asked: Asked) -> dict[str, Any]:
    """The answer as one body."""
    return _response(answer, asked, "completed", list(_items(answer)))


def stream(answer: Answer, asked: Asked) -> Iterator[Frame]:
    """The answer as numbered events: created, each item with its parts, completed."""
    number = 0

    def say(name: str, value: dict[str, Any], content: bool = False) -> Frame:
        nonlocal number
        number += 1
        return event(f"response.{name}", {"sequence_number": number - 1, **value}, content=content)

    yield say("created", {"response": _response(answer, asked, "in_progress", [])})
    yield say("in_progress", {"response": _response(answer, asked, "in_progress", [])})
    done = list(_items(answer))
    for index, item in enumerate(done):
        at = {"item_id": item["id"], "output_index": index}
        empty = {key: value for key, value in EMPTY.items() if key in item}
        yield say("output_item.added", {"output_index": index, "item": item | empty})
        if item["type"] == "message":
            yield from _text_events(say, at, answer.text)
        elif item["type"] == "reasoning":
            yield from _thinking_events(say, at, answer.thinking)
        else:
            key = "arguments" if "arguments" in item else "input"
            name = "function_call_arguments" if key == "arguments" else "custom_tool_call_input"
            for part in halves(item[key]):
                yield say(f"{name}.delta", {**at, "delta": part}, content=True)
            yield say(f"{name}.done", {**at, key: item[key]})
        yield say("output_item.done", {"output_index": index, "item": item})
    name = "incomplete" if answer.finish in ("length", "content_filter") else "completed"
    yield say(name, {"response": _response(answer, asked, name, done)})


def _text_events(say: Any, at: dict[str, Any], text: str) -> Iterator[Frame]:
    at = {**at, "content_index": 0}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    yield say("content_part.added", {**at, "part": part})
    for piece in pieces(text):
        yield say("output_text.delta", {**at, "delta": piece, "logprobs": []}, content=True)
    yield say("output_text.done", {**at, "text": text, "logprobs": []})
    yield say("content_part.done", {**at, "part": {**part, "text": text}})


def _thinking_events(say: Any, at: dict[str, Any], text: str) -> Iterator[Frame]:
    at = {**at, "summary_index": 0}
    yield say("reasoning_summary_part.added", {**at, "part": {"type": "summary_text", "text": ""}})
    for piece in pieces(text):
        yield say("reasoning_summary_text.delta", {**at, "delta": piece}, content=True)
    yield say("reasoning_summary_text.done", {**at, "text": text})
    yield say("reasoning_summary_part.done", {**at, "part": {"type": "summary_text", "text": text}})


def _items(answer: Answer) -> Iterator[dict[str, Any]]:
    if answer.thinking:
        summary = [{"type": "summary_text", "text": answer.thinking}]
        yield {"id": f"rs_{answer.id}", "type": "reasoning", "summary": summary}
    if answer.text or not answer.calls:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": answer.text}
        yield {
            "id": f"msg_{answer.id}",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [part],
        }
    yield from map(_call_item, answer.calls)


def _call_item(call: Call) -> dict[str, Any]:
    what = {"call_id": call.id, "name": call.name, "status": "completed"}
    if call.free:
        return {"id": f"ctc_{call.id}", "type": "custom_tool_call", **what, "input": call.arguments}
    return {"id": f"fc_{call.id}", "type": "function_call", **what, "arguments": call.arguments}


def _turns(items: list[dict[str, Any]]) -> int:
    """What the model has written, counted in runs: a text and its calls are one turn."""
    by_model = [item.get("role") == "assistant" or item.get("type") in BY_MODEL for item in items]
    return sum(now and not before for before, now in zip([False, *by_model], by_model, strict=False))


def _response(answer: Answer, asked: Asked, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    usage = None
    if answer.counts is not None and status != "in_progress":
        counts = answer.counts
        usage = {
            "input_tokens": counts.input,
            "input_tokens_details": {"cached_tokens": counts.cached},
            "output_tokens": counts.output,
            "output_tokens_details": {"reasoning_tokens": counts.reasoning},
            "total_tokens": counts.input + counts.output,
        }
    cut_short = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(answer.finish)
    return {
        "id": f"resp_t{asked.turn}_{answer.id}",
        "object": "response",
        "created_at": answer.created_s,
        "status": "incomplete" if cut_short and status == "completed" else status,
        "model": answer.model,
        "output": output,
        "error": None,
        "incomplete_details": {"reason": cut_short} if cut_short and status != "in_progress" else None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "max_output_tokens": None,
        "previous_response_id": None,
        "usage": usage,
    }
