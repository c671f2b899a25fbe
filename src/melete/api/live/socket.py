"""The WebSocket `/live`: a client says what it wants to watch, and is sent it as it changes.

    client   {"subscribe": ["/api/v1/status", …]}    {"unsubscribe": ["/api/v1/status"]}
    server   ["/api/v1/status", {…}]                 [topic, payload]

What a client sends wrong is answered on the topic `""`. Closes with 1009 (a message that is too long), 1013 (it does
not read) and 4401 (its token or session is not valid any more).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from melete.access import who_of
from melete.api.live.client import Client
from melete.api.live.hub import Hub
from melete.api.live.topic import frame, problem
from melete.api.live.watch import Message
from melete.errors import ConfigError

LONGEST = 1 << 16
TOO_LONG = 1009
ACTIONS = ("subscribe", "unsubscribe")


async def serve(websocket: WebSocket, hub: Hub) -> None:
    """Serves one connection until it ends."""
    await websocket.accept()

    async def close(code: int, reason: str) -> None:
        drop = websocket.scope.get("extensions", {}).get("melete.drop")
        if drop is None:
            await websocket.close(code, reason)
        else:
            drop(code, reason)

    client = hub.enter(who_of(websocket.scope), close)
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
    except (WebSocketDisconnect, RuntimeError):
        return
    finally:
        hub.leave(client)
        writer.cancel()


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
