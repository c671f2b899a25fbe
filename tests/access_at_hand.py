"""A gate with a small application behind it, tokens of every role, and a clock that tests turn."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from melete.access import still_valid, who_of
from melete.serve.auth import TokenGate
from melete.serve.keyring import Keyring
from melete.settings import Settings
from melete.store import database, tokens
from melete.store.audit import AUDIT

HERE = "http://127.0.0.1:8675"
SAME = {"Origin": HERE}
BEGUN_S = 1_795_000_000.0


@dataclass
class Clock:
    """Seconds that go on when a test says so."""

    now_s: float = BEGUN_S

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Door:
    """A gate over a small application, and what it wrote down.

    Attributes:
        settings: of its home.
        clock: of the gate and its keys.
        token: MELETE_TOKEN.
    """

    settings: Settings
    token: str | None = None
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        file = self.settings.home / "melete.db"
        if not file.exists():
            file.write_bytes(_empty_database())
        self.keys = Keyring(self.token, self.settings.database, self.clock)
        self.gate = TokenGate(application(), keys=self.keys, pages=True, clock=self.clock)

    def client(self, address: str = "127.0.0.1", host: str = HERE, **headers: str) -> TestClient:
        """Somebody who comes from an address."""
        return TestClient(
            self.gate, base_url=host, client=(address, 50_000), headers=headers, follow_redirects=False
        )

    def browser(self, secret: str, address: str = "127.0.0.1") -> TestClient:
        """Somebody who has signed in with a token, and whose requests come from our pages."""
        client = self.client(address, **SAME)
        assert client.post("/login", data={"token": secret}).status_code == 303
        return client

    def make(self, name: str, role: str, days: float | None = None) -> str:
        """A token; returns its secret."""
        with database.connect(self.settings.database) as connection:
            _, secret = tokens.make(connection, name, role, by="test", now_s=self.clock(), days=days)
        return secret

    def revoke(self, name: str) -> None:
        """Ends a token, as another process would."""
        with database.connect(self.settings.database) as connection:
            tokens.revoke(connection, tokens.named(connection, name), self.clock())

    def audit(self) -> list[dict[str, Any]]:
        """What was written down, oldest first."""
        with database.connect(self.settings.database) as connection:
            return [dict(row._mapping) for row in connection.execute(AUDIT.select().order_by(AUDIT.c.id))]


@cache
def _empty_database() -> bytes:
    """A database at its newest schema; making one takes longer than a test."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "melete.db")
        with database.connect(f"sqlite:///{file}"):
            pass
        return file.read_bytes()


def bearer(secret: str) -> dict[str, str]:
    """The header of a token."""
    return {"Authorization": f"Bearer {secret}"}


def application() -> Starlette:
    """Says who came; streams events; echoes on a socket; has a sign-in page."""

    async def page(request: Request) -> Response:
        problem = getattr(request.state, "sign_in", None)
        return Response(f"sign in {problem.message if problem else ''}", media_type="text/html")

    async def whoami(request: Request) -> Response:
        who = who_of(request.scope)
        return JSONResponse({"name": who.name, "role": who.role, "via": who.via})

    async def events(_: Request) -> Response:
        async def forever() -> Any:
            while True:
                yield b"data: more\n\n"

        return StreamingResponse(forever(), media_type="text/event-stream")

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(who_of(websocket.scope).name)
        async for _ in websocket.iter_text():
            await websocket.send_text(str(await still_valid(websocket.scope)))

    every = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    routes = [
        Route("/login", page),
        Route("/health", whoami),
        Route("/events", events),
        WebSocketRoute("/api/v1/live", socket),
        Route("/{path:path}", whoami, methods=every),
    ]
    return Starlette(routes=routes)
