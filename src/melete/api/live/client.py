"""One client of the hub: what waits to be sent to it, in bounded memory, however slowly it reads.

A whole replaces what waits of its topic. Increments wait in a line; when the lines get too long they are thrown away,
and the topic is asked for anew, whole, once the client reads again. The texts that wait are shared by all clients.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from melete.access import Who
from melete.api.live.watch import Message

MOST_WAITING = 1 << 20
"""Characters of increments that wait for one client."""


class Client:
    """What a socket has subscribed to, and what it was not sent yet.

    Args:
        who: whose rights it has.
        again: asks for the whole of one of its topics.
    """

    def __init__(self, who: Who, again: Callable[[Client, str], None]) -> None:
        self.who = who
        self.topics: set[str] = set()
        self._again = again
        self._waiting: dict[str, list[Message]] = {}
        self._behind: set[str] = set()
        self._size = 0
        self._some = asyncio.Event()
        self._sending_since_s: float | None = None

    @property
    def stuck_s(self) -> float:
        """For how long it has not read."""
        return 0.0 if self._sending_since_s is None else time.monotonic() - self._sending_since_s

    @property
    def waiting_size(self) -> int:
        """Characters of increments that wait."""
        return self._size

    def put(self, topic: str, message: Message) -> None:
        """Lets a message wait to be sent."""
        if message.whole:
            self._forget(topic)
            self._behind.discard(topic)
            self._waiting[topic] = [message]
        elif topic in self._behind:
            return
        else:
            self._waiting.setdefault(topic, []).append(message)
            self._size += len(message.text)
            if self._size > MOST_WAITING:
                self._fall_behind()
        self._some.set()

    def drop(self, topic: str) -> None:
        """Forgets a topic that it does not watch any more."""
        self._forget(topic)
        self._behind.discard(topic)

    async def write(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Sends what waits, for ever."""
        while True:
            await self._some.wait()
            while self._waiting:
                topic = next(iter(self._waiting))
                messages = self._waiting[topic]
                self._forget(topic)
                self._sending_since_s = time.monotonic()
                for message in messages:
                    await send(message.text)
                self._sending_since_s = None
            self._some.clear()
            for topic in self._behind & self.topics:
                self._again(self, topic)
            self._behind.clear()

    def _forget(self, topic: str) -> None:
        self._size -= sum(len(message.text) for message in self._waiting.pop(topic, ()) if not message.whole)

    def _fall_behind(self) -> None:
        for topic in [topic for topic, line in self._waiting.items() if not line[-1].whole]:
            self._forget(topic)
            self._behind.add(topic)
