"""From the engine's thread to the server's event loop: all tokens of one step cross in one wake-up.

The engine calls `Outlet.put` for every token, 32 times a step with 32 streams. Waking the event loop for each would
cost more than sampling them, so `Bridge` collects what has come and wakes the loop once; the loop then hands the
tokens out and each connection writes what it has as one chunk. A connection that reads slowly finds more tokens
in its next chunk; nothing is dropped.
"""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Receive

    from melete.llm.engine import Token


class Bridge:
    """Carries tokens into one event loop; make it inside that loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: collections.deque[tuple[Outlet, Token | None]] = collections.deque()
        self._woken = False

    def put(self, outlet: Outlet, token: Token | None) -> None:
        """Called in the engine's thread."""
        self._arrived.append((outlet, token))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        # Lowered before reading: a token that comes meanwhile is either read here or wakes the loop again.
        self._woken = False
        while self._arrived:
            outlet, token = self._arrived.popleft()
            if token is None:
                outlet.ended = True
            else:
                outlet.tokens.append(token)
            outlet.news.set()


class Outlet:
    """Where the tokens of one generation arrive; `news` is shared by the generations of one request."""

    __slots__ = ("_bridge", "ended", "news", "tokens")

    def __init__(self, bridge: Bridge, news: asyncio.Event) -> None:
        self._bridge = bridge
        self.news = news
        self.tokens: list[Token] = []
        self.ended = False

    def put(self, token: Token | None) -> None:
        """Called in the engine's thread with each token, then with None."""
        self._bridge.put(self, token)

    def take(self) -> list[Token]:
        """The tokens that have arrived since the last call."""
        tokens, self.tokens = self.tokens, []
        return tokens


class Departure:
    """Watches for the client to leave while its request runs: `async with Departure(receive, news) as client`."""

    def __init__(self, receive: Receive, news: asyncio.Event) -> None:
        self._receive = receive
        self._news = news
        self._watch: asyncio.Task[None] | None = None
        self.gone = False

    async def __aenter__(self) -> Departure:
        self._watch = asyncio.create_task(self._until_gone())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watch is not None
        self._watch.cancel()

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._news.set()
