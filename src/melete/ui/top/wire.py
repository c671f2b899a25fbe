"""The connection to `/api/v1/live`: says which topics are wanted, hands on what arrives, and comes back by itself.

Whoever uses it names the topics that it wants now; what has to be subscribed and unsubscribed follows from that. After
a lost connection all are subscribed again, and each begins with its whole.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
SIGN_IN = 4401
WRONG_TOKEN = (401, 403)


class Wire:
    """A WebSocket that stays.

    Args:
        url: of the server.
        token: what it asks for, if it does.
        on_message: is told each topic and payload.
        on_change: is told when the connection comes up (None) or is lost (why).
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        on_message: Callable[[str, Any], None],
        on_change: Callable[[str | None], None],
    ) -> None:
        scheme, host, path, _, _ = urlsplit(url.rstrip("/") + "/api/v1/live")
        self._url = urlunsplit(("wss" if scheme == "https" else "ws", host, path, "", ""))
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._on_message, self._on_change = on_message, on_change
        self._wanted: set[str] = set()
        self._socket: ClientConnection | None = None

    async def want(self, topics: Iterable[str]) -> None:
        """Watches these topics and no others."""
        wanted = set(topics)
        come, gone = wanted - self._wanted, self._wanted - wanted
        self._wanted = wanted
        await self._say(subscribe=sorted(come), unsubscribe=sorted(gone))

    async def run(self) -> None:
        """Stays connected until it is cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async with connect(self._url, additional_headers=self._headers, max_size=None) as socket:
                    pause_s, self._socket = FIRST_PAUSE_S, socket
                    self._on_change(None)
                    await self._say(subscribe=sorted(self._wanted))
                    async for message in socket:
                        topic, payload = json.loads(message)
                        if topic in self._wanted:
                            self._on_message(topic, payload)
                self._on_change("the server ended the connection")
            except InvalidStatus as error:
                status = error.response.status_code
                self._on_change(
                    "the token is not accepted" if status in WRONG_TOKEN else f"the server answers {status}"
                )
            except ConnectionClosed as error:
                ended = error.rcvd is not None and error.rcvd.code == SIGN_IN
                self._on_change("the token is not valid any more" if ended else "the connection was lost")
            except (OSError, WebSocketException, TimeoutError) as error:
                self._on_change(str(error) or type(error).__name__)
            finally:
                self._socket = None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _say(self, **asked: list[str]) -> None:
        told = {action: topics for action, topics in asked.items() if topics}
        if told and self._socket is not None:
            try:
                await self._socket.send(json.dumps(told))
            except ConnectionClosed:
                return  # the next connection subscribes to all
