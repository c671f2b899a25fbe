"""An answer of the scripted upstream before it has an API's shape: texts, calls, token counts and identifiers."""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

from melete.gateway.echo.asked import Asked, tokens_in
from melete.gateway.echo.script import Reply, ToolCall


@dataclass(frozen=True)
class Counts:
    """Token counts of one answer; `cached` and `cache_write` are part of `input`, `reasoning` of `output`."""

    input: int
    cached: int
    cache_write: int
    output: int
    reasoning: int


@dataclass(frozen=True)
class Call:
    """A proposed tool call; `arguments` is JSON, or the free text of a tool that takes text."""

    id: str
    name: str
    arguments: str
    free: bool


@dataclass(frozen=True)
class Answer:
    """What is answered to one request; `counts` is None where the script says that none are told."""

    id: str
    model: str
    created_s: int
    text: str
    thinking: str
    calls: tuple[Call, ...]
    counts: Counts | None
    finish: str


@dataclass(frozen=True)
class Frame:
    """A part of a stream; `content` marks those that carry something that the model said."""

    data: bytes
    content: bool = False


class Numbering:
    """Identifiers that no other answer of any scripted upstream has."""

    def __init__(self) -> None:
        self._start = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def next(self) -> str:
        """The next one."""
        return f"{self._start}{next(self._numbers):06x}"


def answer_to(asked: Asked, reply: Reply, number: str) -> Answer:
    """Fills in what a reply of the script leaves open."""
    silent = reply.text is None and not reply.tool_calls
    text = asked.last if silent else reply.text or ""
    thinking = reply.thinking or ""
    calls = tuple(_call(call, asked, f"{number}{index}") for index, call in enumerate(reply.tool_calls))
    counts = None
    if reply.usage is not False:
        usage = reply.usage
        written = tokens_in(text) + sum(tokens_in(call.name) + tokens_in(call.arguments) for call in calls)
        counts = Counts(
            input=asked.tokens if usage.input is None else usage.input,
            cached=usage.cached,
            cache_write=usage.cache_write,
            output=written + (usage.reasoning or tokens_in(thinking))
            if usage.output is None
            else usage.output,
            reasoning=usage.reasoning or tokens_in(thinking),
        )
    finish = "tool_calls" if calls and reply.finish == "stop" else reply.finish
    return Answer(number, asked.model, int(time.time()), text, thinking, calls, counts, finish)


def data(value: object) -> Frame:
    """An event without a name."""
    return Frame(b"data: " + _json(value) + b"\n\n")


def event(name: str, value: dict[str, object], *, content: bool = False) -> Frame:
    """An event with a name, which its data repeats as `type`."""
    return Frame(f"event: {name}\n".encode() + b"data: " + _json({"type": name, **value}) + b"\n\n", content)


def halves(arguments: str) -> Iterator[str]:
    """A call's arguments in two parts, as providers stream them."""
    middle = (len(arguments) + 1) // 2
    yield from filter(None, (arguments[:middle], arguments[middle:]))


def _call(call: ToolCall, asked: Asked, number: str) -> Call:
    free = call.input is not None or call.name in asked.free_tools
    arguments = call.input or "" if free else json.dumps(call.arguments)
    return Call(f"call_{number}", call.name, arguments, free)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
