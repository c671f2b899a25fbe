"""A request to the scripted upstream, in the words that the three APIs share, and how its tokens are counted."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

Wire = Literal["chat", "responses", "messages"]
TOKEN = re.compile(r"\w+|[^\w\s]")
PIECE = re.compile(r"\s*\S+|\s+$")


class BadRequestError(ValueError):
    """A body that the API would refuse; the text says why."""


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        wire: the API that it came through.
        model: the model that it names.
        stream: whether the answer is streamed.
        role: who spoke last; a tool's result counts as `tool`, whatever the API calls it.
        last: text of the last message.
        system: the instructions.
        tools: names of the tools that are offered.
        free_tools: those of them that take free text.
        turn: how often the model has spoken in the conversation so far.
        tokens: how long it all is, in tokens.
        usage_wanted: whether a stream ends with its usage.
    """

    wire: Wire
    model: str
    stream: bool
    role: str
    last: str
    system: str
    tools: tuple[str, ...]
    turn: int
    tokens: int
    free_tools: tuple[str, ...] = ()
    usage_wanted: bool = True


def tokens_in(text: str) -> int:
    """Tokens of a text: its words and its marks, each one. No tokenizer's, but the same everywhere and for ever."""
    return len(TOKEN.findall(text))


def pieces(text: str) -> list[str]:
    """A text in the pieces in which it is streamed: words with the space before them."""
    return PIECE.findall(text)


def text_of(content: Any) -> str:
    """Text of a message's content: a string, or parts of which those with text count."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(filter(None, map(text_of, content)))
    if isinstance(content, dict):
        return text_of(content.get("text") or content.get("content") or content.get("output") or "")
    return ""


def field(body: dict[str, Any], name: str, kind: type | tuple[type, ...], *, required: bool = True) -> Any:
    """One field of a body.

    Raises:
        BadRequestError: it is missing, or of another type.
    """
    value = body.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, kind):
        found = "is missing" if value is None else f"is a {type(value).__name__}"
        raise BadRequestError(f"'{name}' {found}")
    return value


def length_of(body: dict[str, Any], *names: str) -> int:
    """Tokens of some fields of a body, as the JSON that they are."""
    return sum(tokens_in(json.dumps(body[name], ensure_ascii=False)) for name in names if body.get(name))
