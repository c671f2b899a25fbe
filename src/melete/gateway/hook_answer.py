"""Reads an answer as the client gets it, whole or as a stream: when content came, how many tokens, how it ended.

One reader for the three endpoints, fed with the bytes that leave the proxy, so that the figures are what the harness
saw and not what LiteLLM thinks it sent. Content is text that a person would read and what a tool is called with;
reasoning is counted in tokens, but does not end the wait for the first content. What was said is kept in memory only
as its length, and as text only where it is asked for. Times are monotonic seconds that the caller hands in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

try:
    import orjson

    _loads: Any = orjson.loads
except ImportError:  # outside LiteLLM's environment
    _loads = json.loads

LARGEST_FRAME = 32 * 1024 * 1024
"""Bytes of an answer that are held to be read; of a longer one only times and status are known."""


@dataclass(frozen=True)
class Tokens:
    """Token counts of one call; `cached` and `cache_write` are part of `input`, `reasoning` of `output`."""

    input: int
    output: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    estimated: bool = False


@dataclass
class Answer:
    """What is known of an answer so far."""

    endpoint: str
    keep_text: bool = False
    model: str | None = None
    finish: str | None = None
    tokens: Tokens | None = None
    tool_calls: int = 0
    error: tuple[str, int | None] | None = None
    done: bool = False
    first_chunk_s: float | None = None
    content_s: list[float] = field(default_factory=list)
    characters: int = 0
    texts: list[str] = field(default_factory=list)
    _buffer: bytes = b""
    _calls: set[Any] = field(default_factory=set)

    def feed(self, data: bytes, now_s: float) -> None:
        """Takes a part of an event stream; half a line waits for its other half."""
        if not data:
            return
        if self.first_chunk_s is None:
            self.first_chunk_s = now_s
        lines = (self._buffer + data).split(b"\n")
        self._buffer = lines.pop()[:LARGEST_FRAME]
        content = self.characters
        for line in lines:
            if line.startswith(b"data:"):
                self._frame(line[5:].strip())
        if self.characters > content:
            self.content_s.append(now_s)

    def read(self, data: bytes, now_s: float) -> None:
        """Takes a whole answer that is one JSON document."""
        self.first_chunk_s = now_s
        document = _document(data)
        if document is None:
            return
        self.done = True
        if "error" in document and not document.get("output") and not document.get("choices"):
            self._failed(document["error"])
        elif self.endpoint == "chat":
            self._chat(document, "message")
        elif self.endpoint == "responses":
            for item in _list(document.get("output")):
                self._item(item)
            self._response(document)
        else:
            for index, block in enumerate(_list(document.get("content"))):
                self._block(index, block)
            self._message(document)
            self.finish = _text(document.get("stop_reason"))
        if self.characters:
            self.content_s.append(now_s)

    def _frame(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        document = _document(data)
        if document is None:
            return
        if self.endpoint == "chat":
            if "error" in document and not document.get("choices"):
                self._failed(document["error"])
            self._chat(document, "delta")
        elif self.endpoint == "responses":
            self._responses_event(document)
        else:
            self._messages_event(document)

    def _chat(self, document: dict[str, Any], part: str) -> None:
        self.model = _text(document.get("model")) or self.model
        self.tokens = openai_tokens(document.get("usage")) or self.tokens
        for choice in _list(document.get("choices")):
            said = choice.get(part)
            said = said if isinstance(said, dict) else {}
            self._say(said.get("content"))
            self._say(said.get("refusal"))
            for call in _list(said.get("tool_calls")):
                function = call.get("function")
                function = function if isinstance(function, dict) else {}
                self._call((choice.get("index"), call.get("index", call.get("id"))))
                self._say(function.get("name"), kept=False)
                self._say(function.get("arguments"))
            if choice.get("finish_reason"):
                self.finish = self.finish or _text(choice["finish_reason"])

    def _responses_event(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind in ("response.output_text.delta", "response.refusal.delta") or kind in (
            "response.function_call_arguments.delta",
            "response.custom_tool_call_input.delta",
        ):
            self._say(event.get("delta"))
        elif kind == "response.output_item.added":
            item = event.get("item")
            if isinstance(item, dict) and str(item.get("type")).endswith("_call"):
                self._call((event.get("output_index"), item.get("id")))
                self._say(item.get("name"), kept=False)
        elif kind in ("response.completed", "response.incomplete", "response.failed", "response.created"):
            response = event.get("response")
            if isinstance(response, dict):
                self._response(response)
            self.done = self.done or kind != "response.created"
        elif kind == "error":
            self._failed(event.get("error") or event)

    def _response(self, response: dict[str, Any]) -> None:
        self.model = _text(response.get("model")) or self.model
        self.tokens = openai_tokens(response.get("usage")) or self.tokens
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        if response.get("status") != "in_progress":
            self.finish = _text(reason) or _text(response.get("status")) or self.finish
        if response.get("status") == "failed" or response.get("error"):
            self._failed(response.get("error"))

    def _item(self, item: dict[str, Any]) -> None:
        if str(item.get("type")).endswith("_call"):
            self._call(item.get("id") or item.get("call_id"))
            self._say(item.get("name"), kept=False)
            self._say(item.get("arguments") or item.get("input"))
        for part in _list(item.get("content")) if item.get("type") == "message" else []:
            self._say(part.get("text") or part.get("refusal"))

    def _messages_event(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "content_block_delta":
            delta = event.get("delta")
            if isinstance(delta, dict):
                self._say(delta.get("text"))
                self._say(delta.get("partial_json"))
        elif kind == "content_block_start":
            block = event.get("content_block")
            if isinstance(block, dict):
                self._block(event.get("index"), block)
        elif kind == "message_start":
            message = event.get("message")
            if isinstance(message, dict):
                self._message(message)
        elif kind == "message_delta":
            delta = event.get("delta")
            if isinstance(delta, dict):
                self.finish = _text(delta.get("stop_reason")) or self.finish
            self.tokens = anthropic_tokens(event.get("usage"), self.tokens) or self.tokens
        elif kind == "message_stop":
            self.done = True
        elif kind == "error" or (kind is None and "error" in event):
            self._failed(event.get("error"))

    def _message(self, message: dict[str, Any]) -> None:
        self.model = _text(message.get("model")) or self.model
        self.tokens = anthropic_tokens(message.get("usage"), self.tokens) or self.tokens

    def _block(self, index: Any, block: dict[str, Any]) -> None:
        if block.get("type") in ("tool_use", "server_tool_use"):
            self._call(index)
            self._say(block.get("name"), kept=False)
            if block.get("input"):
                self._say(json.dumps(block["input"]))
        elif block.get("type") == "text":
            self._say(block.get("text"))

    def _say(self, text: Any, *, kept: bool = True) -> None:
        if not isinstance(text, str) or not text:
            return
        self.characters += len(text)
        if kept and self.keep_text:
            self.texts.append(text)

    def _call(self, which: Any) -> None:
        self._calls.add(str(which))
        self.tool_calls = len(self._calls)

    def _failed(self, error: Any) -> None:
        error = error if isinstance(error, dict) else {}
        code = error.get("code")
        status = int(code) if isinstance(code, (int, str)) and str(code).isdigit() else None
        told = " ".join(str(error.get(name) or "") for name in ("type", "code", "message"))
        self.error = (told[:2000], status)


def openai_tokens(usage: Any) -> Tokens | None:
    """Counts of a chat completion or a response; None where none are told."""
    if not isinstance(usage, dict):
        return None
    responses = "input_tokens" in usage
    read, write = ("input_tokens", "output_tokens") if responses else ("prompt_tokens", "completion_tokens")
    if not isinstance(usage.get(read), int):
        return None
    in_details = _dict(usage.get(f"{read}_details"))
    out_details = _dict(usage.get(f"{write}_details"))
    return Tokens(
        input=_count(usage.get(read)),
        output=_count(usage.get(write)),
        cached=_count(in_details.get("cached_tokens")),
        cache_write=_count(
            in_details.get("cache_creation_tokens")
            or in_details.get("cache_write_tokens")
            or usage.get("cache_creation_input_tokens")
        ),
        reasoning=_count(out_details.get("reasoning_tokens")),
    )


def anthropic_tokens(usage: Any, before: Tokens | None) -> Tokens | None:
    """Counts of a message, where `input_tokens` leaves out what a cache had; later events complete earlier ones."""
    if not isinstance(usage, dict) or not ({"input_tokens", "output_tokens"} & usage.keys()):
        return None
    if not isinstance(usage.get("input_tokens"), int):
        old = before or Tokens(0, 0)
        return Tokens(
            old.input, _count(usage.get("output_tokens")), old.cached, old.cache_write, old.reasoning
        )
    cached = _count(usage.get("cache_read_input_tokens"))
    write = _count(usage.get("cache_creation_input_tokens"))
    details = _dict(usage.get("output_tokens_details"))
    found = Tokens(
        input=_count(usage.get("input_tokens")) + cached + write,
        output=_count(usage.get("output_tokens")),
        cached=cached,
        cache_write=write,
        reasoning=_count(details.get("reasoning_tokens") or details.get("thinking_tokens")),
    )
    if before is not None and found.input < before.input:
        return Tokens(before.input, found.output, before.cached, before.cache_write, found.reasoning)
    return found


def _document(data: bytes) -> dict[str, Any] | None:
    try:
        document = _loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
