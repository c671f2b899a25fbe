"""The scripted upstream as a web server on a loopback port, in the foreground or in a thread.

    POST /v1/chat/completions, /v1/responses, /v1/messages     answered as the script says
    POST /v1/messages/count_tokens                             Anthropic's count of a request
    GET  /v1/models, /health                                   what it offers; that it is up

Every answer has an upstream request id, as providers give. Connections are kept open longer than LiteLLM keeps them, so
that it never writes into one that was just closed. Written to ASGI directly: a test that sends a thousand requests
through the gateway should spend its time in the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from melete import supervision
from melete.errors import ServerError
from melete.gateway.echo import chat, messages, responses
from melete.gateway.echo.answer import Numbering, answer_to
from melete.gateway.echo.asked import Asked, BadRequestError
from melete.gateway.echo.script import Failure, Play, Reply, Script

WIRES: dict[str, ModuleType] = {
    "/chat/completions": chat,
    "/responses": responses,
    "/messages": messages,
}
HOST = "127.0.0.1"
KEEP_ALIVE_S = 200
"""LiteLLM keeps idle connections for 120 s."""
LARGEST_BYTES = 64_000_000
LOG = logging.getLogger("melete.gateway.echo")
JSON_TYPE = (b"content-type", b"application/json")
STREAM_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")


class Echo:
    """The upstream on a port; `run` serves until a signal, `with Echo(...) as echo:` serves from a thread.

    Args:
        script: what it plays; nothing repeats what is said to it.
        port: 0 takes a free one.
        keep: how many of the newest requests it keeps in `seen`, with their bodies.

    Raises:
        ServerError: the port is taken.
    """

    def __init__(self, script: Script | None = None, *, port: int = 0, keep: int = 0) -> None:
        self.play(script or Script())
        self.seen: deque[dict[str, Any]] = deque(maxlen=keep)
        self._numbering = Numbering()
        self._socket = supervision.bind(HOST, port, "melete gateway echo")
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        config = uvicorn.Config(
            self._app, interface="asgi3", access_log=False, log_level="critical", server_header=False, lifespan="off",
            timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = _Uvicorn(config)
        self._thread: threading.Thread | None = None

    def play(self, script: Script) -> None:
        """Plays another script from the next request on."""
        self._play = Play(script)

    def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Serves until SIGINT or SIGTERM."""
        self._server.on_ready = on_ready
        self._server.run(sockets=[self._socket])

    def __enter__(self) -> Echo:
        ready = threading.Event()
        self._server.on_ready = ready.set
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="melete-echo", daemon=True
        )
        self._thread.start()
        if not ready.wait(30):
            raise ServerError(f"The scripted upstream at {self.url} did not start within 30 s.")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(10)
        self._socket.close()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = _Exchange(receive, send, self._numbering.next())
        try:
            await self._answer(scope, exchange)
        except _Cut:
            return  # An answer that ends before it is whole makes the server close the connection.
        except Exception:
            LOG.exception("the scripted upstream failed")
            raise

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        path = scope["path"].removeprefix("/v1").rstrip("/") or "/"
        if scope["method"] in ("GET", "HEAD"):
            await self._look(path, exchange)
            return
        raw = await exchange.body()
        wire = WIRES.get(path.removesuffix("/count_tokens"))
        if wire is None:
            text = f"there is no {scope['method']} {scope['path']}"
            await exchange.json(404, chat.problem(404, None, None, text))
            return
        try:
            body = json.loads(raw)
            if not isinstance(body, dict):
                raise BadRequestError("the body is not a JSON object")
            asked: Asked = wire.read(body)
        except (ValueError, RecursionError) as error:
            await exchange.json(400, wire.problem(400, None, None, str(error)))
            return
        if self.seen.maxlen:
            headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
            self.seen.append({"path": scope["path"], "headers": headers, "body": body, "id": exchange.id})
        if path.endswith("/count_tokens"):
            await exchange.json(200, {"input_tokens": asked.tokens})
            return
        await self._reply(asked, self._play.reply(asked), wire, exchange)

    async def _look(self, path: str, exchange: _Exchange) -> None:
        if path == "/models":
            models = [
                {"id": name, "object": "model", "created": 0, "owned_by": "melete"}
                for name in self._play.script.models
            ]
            await exchange.json(200, {"object": "list", "data": models})
        elif path in ("/", "/health"):
            await exchange.json(200, {"status": "ok"})
        else:
            await exchange.json(404, chat.problem(404, None, None, f"there is no {path}"))

    async def _reply(self, asked: Asked, reply: Reply, wire: ModuleType, exchange: _Exchange) -> None:
        await exchange.sleep(reply.delay.head_s)
        if reply.hang_s:
            await exchange.sleep(reply.hang_s)
            raise _Cut
        if reply.error is not None:
            await self._fail(reply.error, wire, exchange)
            return
        if reply.raw is not None:
            await exchange.whole(200, reply.raw.encode(), STREAM_TYPE if asked.stream else JSON_TYPE)
            return
        answer = answer_to(asked, reply, exchange.id)
        if asked.stream:
            await _stream(wire.stream(answer, asked), reply, exchange)
            return
        await exchange.sleep(reply.delay.first_s)
        body = json.dumps(wire.whole(answer, asked)).encode()
        if reply.cut_after is not None:
            await exchange.start(200, JSON_TYPE, (b"content-length", str(len(body)).encode()))
            await exchange.part(body[: len(body) // 2])
            raise _Cut
        await exchange.whole(200, body, JSON_TYPE)

    async def _fail(self, error: Failure, wire: ModuleType, exchange: _Exchange) -> None:
        body = wire.problem(error.status, error.type, error.code, error.message)
        more = [(key.lower().encode(), value.encode()) for key, value in error.headers.items()]
        await exchange.whole(error.status, json.dumps(body).encode(), JSON_TYPE, *more)


async def _stream(frames: Any, reply: Reply, exchange: _Exchange) -> None:
    """Sends a stream, each event as a write of its own."""
    await exchange.start(200, STREAM_TYPE, (b"cache-control", b"no-cache"))
    told = 0
    for frame in frames:
        if frame.content:
            if reply.cut_after is not None and told >= reply.cut_after:
                raise _Cut
            await exchange.sleep(reply.delay.token_s if told else reply.delay.first_s)
            told += 1
        await exchange.part(frame.data)
    if reply.cut_after is not None:
        raise _Cut
    await exchange.end()


class _Cut(Exception):
    """The script cuts the connection here, or the client went away."""


class _Exchange:
    """One request and its answer on the wire."""

    def __init__(self, receive: Receive, send: Send, number: str) -> None:
        self.id = number
        self._receive, self._send = receive, send

    async def body(self) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _Cut
            parts.append(message.get("body", b""))
            if sum(map(len, parts)) > LARGEST_BYTES:
                raise _Cut
            if not message.get("more_body"):
                return b"".join(parts)

    async def sleep(self, seconds: float) -> None:
        """Waits, and stops waiting when the client goes away."""
        if seconds <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
                raise _Cut

    async def start(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        ids = ((b"x-request-id", f"req_{self.id}".encode()), (b"request-id", f"req_{self.id}".encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *ids]})

    async def part(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": data})

    async def whole(self, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        await self.start(status, *headers, (b"content-length", str(len(body)).encode()))
        await self.end(body)

    async def json(self, status: int, body: dict[str, Any]) -> None:
        await self.whole(status, json.dumps(body).encode(), JSON_TYPE)


class _Uvicorn(uvicorn.Server):
    """Uvicorn that says when it listens."""

    on_ready: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets=sockets)
        if self.started and self.on_ready is not None:
            self.on_ready()
