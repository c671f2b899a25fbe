"""The door of the proxy: an ASGI layer around LiteLLM that admits requests, cleans them and has them recorded.

Nothing reaches LiteLLM but a request of a live session, to one of a few paths, with headers and parameters from
allow-lists and without the session's key: LiteLLM never sees a secret of ours. Refusals are answered here, in the
form that clients of the endpoint expect. The model list is answered here too, as it is the session's own.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from melete.gateway import hook_request
from melete.gateway.hook_answer import Answer
from melete.gateway.hook_keys import Admission, Keys, Refusal
from melete.gateway.hook_record import Exchange, Recorder
from melete.gateway.hook_wire import Back, Message, Receive, Send, Wire, with_our_headers
from melete.gateway.issuers import key_hash

Application = Callable[[Message, Receive, Send], Awaitable[None]]

BODY_WAIT_S = 120.0
LEAVING_S = 2.0
"""Seconds that LiteLLM gets to wind up a stream whose client has left."""
HEALTH = frozenset({"/health/liveliness", "/health/liveness", "/health/readiness"})
METRICS = frozenset({"/metrics", "/metrics/"})
INNER_KEY = b"Bearer sk-admitted-by-the-door"
"""What LiteLLM gets in place of the session's key; on its own it opens nothing."""
ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip


@dataclass(frozen=True)
class Inside:
    """Who a request inside LiteLLM belongs to, as only the door can say it.

    `kind` is session, count (tokens are counted, no model is asked), warm or scrape.
    """

    kind: str
    models: tuple[str, ...] = ()
    session: str | None = None
    key_hash: str | None = None
    exchange: Exchange | None = None


inside: ContextVar[Inside | None] = ContextVar("melete_inside", default=None)
"""The request that the running task belongs to; a client has no way to set it."""


@dataclass
class Visit:
    """What is known of a request when it is refused."""

    path: str
    method: str
    headers: dict[bytes, bytes]
    endpoint: str | None
    session: str | None = None
    model: str | None = None
    started_s: float = field(default_factory=time.monotonic)


class Door:
    """Stands before an ASGI application.

    Args:
        application: LiteLLM's proxy.
        keys: admits keys.
        recorder: writes events.
        scrape_key_hash: SHA-256 of the key that reads `/metrics`; without one nobody does.
        warm_key_hash: SHA-256 of the key of the warm-up, whose calls are not recorded.
        warm_model: the only model that the warm-up may call.
    """

    def __init__(
        self,
        application: Application,
        keys: Keys,
        recorder: Recorder,
        *,
        scrape_key_hash: str = "",
        warm_key_hash: str = "",
        warm_model: str = "",
    ) -> None:
        self.application = application
        self.keys = keys
        self.recorder = recorder
        self.scrape_key_hash = scrape_key_hash
        self.warm_key_hash = warm_key_hash
        self.warm_model = warm_model

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        path = _path(scope)
        method = scope["method"]
        visit = Visit(path, method, dict(scope["headers"]), hook_request.PATHS.get(path))
        try:
            await self._enter(visit, scope, receive, send)
        except Refusal as refusal:
            self.recorder.refused(
                visit.session,
                refusal.error_class,
                refusal.status,
                latency_ms=(time.monotonic() - visit.started_s) * 1000,
                endpoint=visit.endpoint,
                model=visit.model,
                client=hook_request.client_of(visit.headers),
            )
            await _answer_refusal(send, visit.endpoint, refusal)

    async def _enter(self, visit: Visit, scope: Message, receive: Receive, send: Send) -> None:
        if visit.endpoint is not None and visit.method == "POST":
            if _is_key(visit.headers, self.warm_key_hash):
                await self._warm(visit, scope, receive, send)
            else:
                await self._call(visit, scope, receive, send)
        elif visit.method not in ("GET", "HEAD"):
            raise Refusal(404, "not_found", "The gateway does not offer this.")
        elif visit.path in HEALTH:
            await self.application(_inner(scope, visit.path, [], 0), receive, send)
        elif visit.path in METRICS:
            if not _is_key(visit.headers, self.scrape_key_hash):
                raise Refusal(401, "refused_session", "This is not the key that reads the metrics.")
            inside.set(Inside("scrape"))
            await self.application(_inner(scope, "/metrics/", [], 0), receive, send)
        elif (name := _listed(visit.path)) is not None:
            admission = await self.keys.admit(hook_request.key_of(visit.headers))
            visit.session = admission.session
            await _answer_models(send, admission.models, name)
        else:
            raise Refusal(404, "not_found", "The gateway does not offer this.")

    async def _call(self, visit: Visit, scope: Message, receive: Receive, send: Send) -> None:
        """A session's call of a model, from the key to the last byte of the answer."""
        assert visit.endpoint is not None
        admission = await self.keys.admit(hook_request.key_of(visit.headers))
        visit.session = admission.session
        body = hook_request.read_body(await _whole_body(receive), visit.headers)
        body, changed = hook_request.clean_body(visit.endpoint, body, admission.models)
        headers, taken = hook_request.clean_headers(scope["headers"])
        visit.model = body["model"]
        wire = Wire(hook_request.write_body(body), receive)
        inner = _inner(scope, visit.path, headers, len(wire.body), hook_request.client_of(visit.headers))
        if visit.endpoint == "count":
            inside.set(Inside("count", admission.models, admission.session, admission.key_hash))
            await self.application(inner, wire.receive, with_our_headers(send))
            return
        exchange = Exchange(
            admission=admission,
            endpoint=visit.endpoint,
            stream=body.get("stream") is True,
            model=body["model"],
            answer=Answer(visit.endpoint),
            client=hook_request.client_of(visit.headers),
            changed=sorted({*changed, *taken}),
            body=body,
        )
        await self._begin(exchange, admission)
        await self._exchange(exchange, inner, wire, send)

    async def _begin(self, exchange: Exchange, admission: Admission) -> None:
        if not self.recorder.ready():
            raise Refusal(503, "other", "The gateway cannot record requests: its disk is full.")
        exchange.spending = await self.keys.spend(admission)
        try:
            self.recorder.begin(exchange)
        except OSError:
            raise Refusal(503, "other", "The gateway cannot record requests: its disk is full.") from None

    async def _exchange(self, exchange: Exchange, inner: Message, wire: Wire, send: Send) -> None:
        admission = exchange.admission
        inside.set(
            Inside("session", (exchange.model,), admission.session, admission.key_hash, exchange=exchange)
        )
        back = Back(exchange, self.recorder, wire, send)
        watcher = asyncio.ensure_future(wire.watch())
        running = asyncio.ensure_future(self.application(inner, wire.receive, back.send))
        try:
            await asyncio.wait({running, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done() and not exchange.ended:
                back.broken("client_abort")
                await asyncio.wait({running}, timeout=LEAVING_S if back.streaming else 0)
                running.cancel()  # nobody waits for the answer, so the upstream need not go on
            await running
        except asyncio.CancelledError:
            if not wire.left.is_set():
                running.cancel()
                back.broken("interrupted")
                raise
        finally:
            watcher.cancel()
            back.broken("error")

    async def _warm(self, visit: Visit, scope: Message, receive: Receive, send: Send) -> None:
        """A call of the warm-up: its one model and no record."""
        assert visit.endpoint is not None
        body = hook_request.read_body(await _whole_body(receive), visit.headers)
        body, _ = hook_request.clean_body(visit.endpoint, body, (self.warm_model,))
        wire = Wire(hook_request.write_body(body), receive)
        inside.set(Inside("warm", (self.warm_model,)))
        headers, _ = hook_request.clean_headers(scope["headers"])
        await self.application(_inner(scope, visit.path, headers, len(wire.body)), wire.receive, send)


def _path(scope: Message) -> str:
    """The path as it was sent; an escaped one equals none of ours."""
    raw = scope.get("raw_path")
    return raw.decode("latin-1") if isinstance(raw, bytes) and raw else str(scope["path"])


def _inner(
    scope: Message, path: str, headers: hook_request.Headers, length: int, client: str | None = None
) -> Message:
    """The scope that LiteLLM gets: our path, no query, cleaned headers, and a key that is none."""
    own = [
        (b"content-type", b"application/json"),
        (b"content-length", str(length).encode()),
        (b"authorization", INNER_KEY),
        (b"user-agent", (client or "unknown").encode()),
    ]
    return {
        **scope,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [*headers, *own],
    }


async def _whole_body(receive: Receive) -> bytes:
    """All of a body.

    Raises:
        Refusal: it is too large, comes too slowly, or the client left before its end.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "client_abort", "The request ended before its body did.")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > hook_request.BODY_BYTES:
                    raise Refusal(413, "bad_request", "The body is too large.")
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Refusal(408, "timeout", "The body did not come in time.") from None


def _is_key(headers: dict[bytes, bytes], digest: str) -> bool:
    key = hook_request.key_of(headers)
    if not digest or not key:
        return False
    return hmac.compare_digest(key_hash(key), digest.lower())


def _listed(path: str) -> str | None:
    """What a path of the model list asks for: "" for the list, a name for one model, None for another path."""
    if path in hook_request.MODEL_LISTS:
        return ""
    for start in hook_request.MODEL_LISTS:
        if path.startswith(f"{start}/"):
            return path.removeprefix(f"{start}/")
    return None


async def _answer_models(send: Send, models: tuple[str, ...], name: str) -> None:
    """The models of a session, in a form that both OpenAI's and Anthropic's clients read."""
    cards = [
        {"id": model, "object": "model", "created": 0, "owned_by": "melete", "type": "model", "display_name": model,
         "created_at": "1970-01-01T00:00:00Z"}
        for model in models
    ]  # fmt: skip
    if not name:
        edges = {"first_id": models[0] if models else None, "last_id": models[-1] if models else None}
        await _answer(send, 200, {"object": "list", "data": cards, "has_more": False, **edges})
        return
    card = next((card for card in cards if card["id"] == name), None)
    if card is None:
        raise Refusal(404, "refused_model", "This session has no model of that name.")
    await _answer(send, 200, card)


async def _answer_refusal(send: Send, endpoint: str | None, refusal: Refusal) -> None:
    if endpoint in ("messages", "count"):
        kind = ANTHROPIC_TYPES.get(refusal.status, "api_error")
        document: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": refusal.message}}
    else:
        error = {"message": refusal.message, "type": refusal.error_class, "param": None}
        document = {"error": {**error, "code": str(refusal.status)}}
    await _answer(send, refusal.status, document)


async def _answer(send: Send, status: int, document: dict[str, Any]) -> None:
    data = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data, "more_body": False})
