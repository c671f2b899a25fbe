"""The WebSocket `/live`: a client says what it wants to watch, and is sent it as it changes.

    client   {"subscribe": ["/api/v1/status", …]}    {"unsubscribe": ["/api/v1/status"]}
    server   ["/api/v1/status", {…}]                 [topic, payload]

What a client sends wrong is answered on the topic `""`. Closes with 1009 (a message that is too long), 1013 (it does
not read) and 4401 (its token or session is not valid any more).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from melete.access import still_valid, who_of
from melete.api.live.client import Client
from melete.api.live.hub import Hub
from melete.api.live.topic import frame, problem
from melete.api.live.watch import Message
from melete.errors import ConfigError

LONGEST = 1 << 16
TOO_LONG = 1009
DROP = "melete.drop"
"""Extension of the ASGI scope that `melete.serve.listen` offers: ends a connection whose other end does not read."""
ACTIONS = ("subscribe", "unsubscribe")


class Socket:
    """One connection, as the hub sees it.

    Args:
        websocket: accepted.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self.who = who_of(websocket.scope)
        self._websocket = websocket

    async def close(self, code: int, reason: str) -> None:
        """Ends it; a server of ours also drops one whose other end does not read."""
        drop = self._websocket.scope.get("extensions", {}).get(DROP)
        if drop is not None:
            drop(code, reason)
        else:
            await self._websocket.close(code, reason)

    async def still_valid(self) -> bool:
        """Whether who opened it may keep it."""
        return await still_valid(self._websocket.scope)


async def serve(websocket: WebSocket, hub: Hub) -> None:
    """Serves one connection until it ends."""
    await websocket.accept()
    client = hub.enter(Socket(websocket))
    writer = asyncio.create_task(client.write(websocket.send_text))
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is not None and len(text) > LONGEST:
                await websocket.close(TOO_LONG, f"A message has {LONGEST} characters at most.")
                return
            for action, topic in _read(client, text):
                getattr(hub, action)(client, topic)
    finally:
        hub.leave(client)
        writer.cancel()
        with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError, OSError):
            await writer


def _read(client: Client, text: str | None) -> list[tuple[str, Any]]:
    """What a message asks for: pairs of an action and a topic."""
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and all(
        action in ACTIONS and isinstance(topics, list) for action, topics in found.items()
    ):
        return [(action, topic) for action, topics in found.items() for topic in topics]
    error = ConfigError(
        "This message cannot be understood.",
        allowed='{"subscribe": ["/api/v1/status"]} or {"unsubscribe": ["/api/v1/status"]}',
    )
    client.put("", Message(frame("", problem(error, code="bad_message")), whole=True))
    return []
