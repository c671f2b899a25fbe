"""The client's side of one request: what LiteLLM receives of it, and what goes back to the client, read on its way.

What is sent back is passed on unchanged, chunk by chunk; of LiteLLM's headers those that tell of its inside are left
out, and what they tell is noted. The end of a request is written before its last bytes leave.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from melete.gateway.hook_answer import LARGEST_FRAME
from melete.gateway.hook_record import Exchange, Recorder, class_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BACK = frozenset({
    b"content-type", b"content-length", b"cache-control", b"retry-after", b"retry-after-ms", b"x-should-retry",
})  # fmt: skip
BACK_PREFIXES = (b"x-ratelimit-", b"anthropic-ratelimit-")
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:=-]{0,199}")


class Wire:
    """The client's end of a request: hands the cleaned body in once, and tells when the client has left."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self.body = body
        self.left = asyncio.Event()
        self._receive = receive
        self._handed = False

    async def receive(self) -> Message:
        """What LiteLLM receives."""
        if not self._handed:
            self._handed = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def watch(self) -> None:
        """Waits until the client leaves."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left.set()


class Back:
    """Passes an answer on and reads it; the end of the request is written before its last bytes leave."""

    def __init__(self, exchange: Exchange, recorder: Recorder, wire: Wire, send: Send) -> None:
        self.exchange = exchange
        self._recorder = recorder
        self._wire = wire
        self._send = send
        self.streaming = False
        self._status: int | None = None
        self._whole: list[bytes] = []
        self._size = 0
        exchange.answer.keep_text = exchange.admission.policy.content

    async def send(self, message: Message) -> None:
        """What LiteLLM sends."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = {name.lower(): value for name, value in message["headers"]}
            self.streaming = headers.get(b"content-type", b"").startswith(b"text/event-stream")
            _read_headers(self.exchange, headers)
            message = {**message, "headers": _headers_back(message["headers"], self.exchange.id)}
        elif message["type"] == "http.response.body" and not self.exchange.ended:
            self._body(message.get("body", b""), last=not message.get("more_body", False))
        await self._send(message)

    def broken(self, status: str) -> None:
        """Ends the record of a request whose answer did not come to its end."""
        if not self.exchange.ended:
            self._end(status, None if status in ("client_abort", "interrupted") else "other")

    def _body(self, data: bytes, *, last: bool) -> None:
        answer = self.exchange.answer
        now_s = time.monotonic()
        if self.streaming:
            answer.feed(data, now_s)
            if answer.done or answer.error or last:
                self._finish()
            return
        self._size += len(data)
        if self._size <= LARGEST_FRAME:
            self._whole.append(data)
        if last:
            answer.read(b"".join(self._whole), now_s)
            self._finish()

    def _finish(self) -> None:
        exchange = self.exchange
        answer = exchange.answer
        status = self._status or 500
        if self._wire.left.is_set():
            self._end("client_abort", None)
        elif answer.error is not None or status >= 400:
            told, code = answer.error or ("", None)
            failed = exchange.attempts[-1].error_class if exchange.attempts else None
            self._end("error", failed or class_of(code if status < 400 else status, told))
        elif exchange.cut or (self.streaming and not answer.done):
            self._end("error", "connection")
        else:
            self._end("cache_hit" if exchange.cached else "ok", None)

    def _end(self, status: str, error_class: str | None) -> None:
        self._recorder.end(self.exchange, status, self._status, error_class)


def with_our_headers(send: Send) -> Send:
    """Sends what it is given without LiteLLM's own headers."""

    async def cleaned(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": _headers_back(message["headers"], None)}
        await send(message)

    return cleaned


def _read_headers(exchange: Exchange, headers: dict[bytes, bytes]) -> None:
    """What LiteLLM tells of a call in the headers of its answer."""
    exchange.call_id = _plain(headers.get(b"x-litellm-call-id"))
    exchange.overhead_ms = _number(headers.get(b"x-litellm-overhead-duration-ms"))
    exchange.cost_header = _number(headers.get(b"x-litellm-response-cost"))
    exchange.cached = b"x-litellm-cache-key" in headers
    for name in (b"llm_provider-x-request-id", b"llm_provider-request-id", b"llm_provider-x-ms-request-id"):
        exchange.upstream_request_id = exchange.upstream_request_id or _plain(headers.get(name))


def _headers_back(headers: Any, id: str | None) -> list[tuple[bytes, bytes]]:
    passed = [
        (name, value)
        for name, value in headers
        if name.lower() in BACK or name.lower().startswith(BACK_PREFIXES)
    ]
    own = [] if id is None else [(b"x-request-id", id.encode()), (b"request-id", id.encode())]
    return [*passed, *own]


def _plain(value: bytes | None) -> str | None:
    text = (value or b"").decode("latin-1")
    return text if _PLAIN_ID.fullmatch(text) else None


def _number(value: bytes | None) -> float | None:
    try:
        return float(value) if value is not None else None
    except ValueError:
        return None
