"""What a model writes, token by token, as content and tool calls in the pieces that a stream carries.

`OutputParser` is fed the engine's tokens and returns `Delta`s; the whole answer is their sum, so that streamed and
plain answers cannot differ. A call's name is known before its arguments, which are passed on as they are written.
Three forms of calls are read: a special token that begins a call (our models), `<tool_call>…</tool_call>` in the text
(Qwen), and an answer that is one bare JSON call (Llama 3). A call that cannot be read is still a call, with an empty
name and its raw text as arguments, as in `melete.llm.chat.parse_call`: the client sees that the model meant to call.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from melete.llm.chat import parse_call
from melete.records import ToolCall

if TYPE_CHECKING:
    from melete.llm.engine import Token
    from melete.llm.lm import LM

HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)+")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer: content if `call` is None, else of the call with that index.

    `id` and `name` are set in a call's first piece, `text` then holds the beginning of its arguments.
    """

    text: str
    call: int | None = None
    id: str | None = None
    name: str | None = None


class OutputParser:
    """Reads one answer.

    Args:
        call_token: the token that begins a call, or None if calls are looked for in the text.
        tagged: whether the text may hold `<tool_call>` tags.
        bare: whether the whole answer may be one call without any mark.
    """

    def __init__(self, *, call_token: int | None = None, tagged: bool = False, bare: bool = False) -> None:
        self.content = ""
        self.calls: list[ToolCall] = []
        self._call_token = call_token
        self._tagged = tagged
        self._bare: bool | None = bare or None
        self._held = ""
        self._reader: _CallReader | None = None

    @classmethod
    def of(cls, lm: LM, tools: bool) -> OutputParser:
        """The parser for a model's chat format; without `tools`, text that looks like a call stays text."""
        start = lm.chat.call_start
        if lm.kind == "melete":
            return cls(call_token=start[0])
        return cls(tagged=bool(start) and tools, bare=not start and tools)

    def feed(self, tokens: Iterable[Token]) -> list[Delta]:
        """Deltas of some more tokens; content of neighbouring tokens comes in one piece."""
        deltas: list[Delta] = []
        text = ""
        for token in tokens:
            if token.id == self._call_token:
                self._text(text, deltas)
                text = ""
                self._end_call(deltas)
                self._begin_call()
            else:
                text += token.text
        self._text(text, deltas)
        return deltas

    def finish(self) -> list[Delta]:
        """Deltas of what was held back; the answer is complete after it."""
        deltas: list[Delta] = []
        held, self._held = self._held, ""
        if self._bare and parse_call(held.removeprefix("<|python_tag|>"), "").name:
            self._begin_call()
            held = held.removeprefix("<|python_tag|>")
        if self._reader is not None:
            deltas += self._reader.feed(held)
            self._end_call(deltas)
        else:
            self._say(held, deltas)
        return deltas

    def _text(self, text: str, deltas: list[Delta]) -> None:
        if not text:
            return
        if self._bare is not None:
            self._held += text
            start = self._held.lstrip()
            if self._bare and start and not start.startswith(("{", "<|python_tag|>"[: len(start)])):
                self._bare = None
                held, self._held = self._held, ""
                self._say(held, deltas)
        elif self._tagged:
            self._held += text
            self._read_tags(deltas)
        elif self._reader is not None:
            deltas += self._reader.feed(text)
        else:
            self._say(text, deltas)

    def _read_tags(self, deltas: list[Delta]) -> None:
        while True:
            tag = OPEN if self._reader is None else CLOSE
            before, found, after = self._held.partition(tag)
            if not found:
                # The line break before a tag belongs to the tag.
                keep = max(_possible_beginning(self._held, tag), _possible_beginning(self._held, f"\n{tag}"))
                before, self._held = (
                    self._held[: len(self._held) - keep],
                    self._held[len(self._held) - keep :],
                )
            else:
                before, self._held = before.removesuffix("\n"), after
            if self._reader is not None:
                deltas += self._reader.feed(before)
                if found:
                    self._end_call(deltas)
            elif before.strip() or not self.calls:
                self._say(before, deltas)
            if not found:
                return
            if tag == OPEN:
                self._begin_call()

    def _say(self, text: str, deltas: list[Delta]) -> None:
        if text:
            self.content += text
            deltas.append(Delta(text))

    def _begin_call(self) -> None:
        self._reader = _CallReader(len(self.calls))

    def _end_call(self, deltas: list[Delta]) -> None:
        if self._reader is not None:
            last, call = self._reader.finish()
            deltas += last
            self.calls.append(call)
            self._reader = None


class _CallReader:
    """Reads `{"name":…,"arguments":{…}}`; passes the arguments on as they come once the name is known."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._id = f"call_{uuid.uuid4().hex[:24]}"
        self._name = ""
        self._raw = ""
        self._arguments = ""
        self._depth = 0
        self._in_text = False
        self._escaped = False

    def feed(self, text: str) -> list[Delta]:
        """Deltas of some more text."""
        self._raw += text
        if self._name:
            taken = self._take(text)
            return [Delta(taken, self._index)] if taken else []
        head = HEAD.match(self._raw)
        call = parse_call(self._raw[: head.end()] + "{}}", "") if head else None
        if head is None or call is None or not call.name:
            return []
        self._name = call.name
        return [Delta(self._take(self._raw[head.end() :]), self._index, self._id, self._name)]

    def finish(self) -> tuple[list[Delta], ToolCall]:
        """The rest of the call, and the call."""
        if self._name:
            return [], ToolCall(self._id, self._name, self._arguments)
        call = parse_call(self._raw, self._id)
        return [Delta(call.arguments, self._index, self._id, call.name)], call

    def _take(self, text: str) -> str:
        """The part of `text` that belongs to the arguments' object; what follows its last brace is dropped."""
        if self._arguments and self._depth == 0:
            return ""
        end = len(text)
        for i, character in enumerate(text):
            if self._in_text:
                self._in_text = character != '"' or self._escaped
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._in_text = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    end = i + 1
                    break
        self._arguments += text[:end]
        return text[:end]


def _possible_beginning(text: str, tag: str) -> int:
    """Length of the longest end of `text` with which `tag` begins."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if tag.startswith(text[-n:])), 0)
