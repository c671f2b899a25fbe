"""One task that watches a topic for all its subscribers: it looks, and gives everybody the same text.

It ends with its last subscriber. A look that took long is followed by a longer pause, so that no topic takes more than
a fifth of the server's time.
"""

from __future__ import annotations

import asyncio
import logging
import time

from melete.api.live.client import Client
from melete.api.live.topic import frame, problem
from melete.api.live.watch import Joined, Message, Watch
from melete.errors import MeleteError, ServerError

PAUSES = 4
"""Times as long as a look took, at least, until the next."""
log = logging.getLogger("melete.api")


class Poller:
    """Watches one topic.

    Args:
        name: the topic.
        watch: looks at it.
    """

    def __init__(self, name: str, watch: Watch) -> None:
        self.name = name
        self._watch = watch
        self._members: set[Client] = set()
        self._joining: set[Client] = set()
        self._woken = asyncio.Event()
        self._failed: str | None = None
        self._task = asyncio.create_task(self._run(), name=f"live {name}")

    @property
    def empty(self) -> bool:
        """Whether nobody watches."""
        return not self._members

    def add(self, client: Client) -> None:
        """Sends a client the whole soon, and then what is new."""
        self._members.add(client)
        self._joining.add(client)
        self._woken.set()

    def remove(self, client: Client) -> None:
        """Sends a client nothing more; the last one ends the watching."""
        self._members.discard(client)
        self._joining.discard(client)
        if self.empty:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            begun_s = time.monotonic()
            joining, self._joining = self._joining, set()
            self._woken.clear()
            news, whole = await self._look(joining)
            for client in self._members:
                message = whole if client in joining else news
                if message is not None and client not in self._joining:
                    client.put(self.name, message)
            pause_s = max(self._watch.period_s, PAUSES * (time.monotonic() - begun_s))
            try:
                await asyncio.wait_for(self._woken.wait(), pause_s)
            except TimeoutError:
                continue

    async def _look(self, joining: set[Client]) -> tuple[Message | None, Message | None]:
        """News for those who are here, and the whole for those who come; what fails is told once."""
        try:
            found = await self._watch.join() if joining else Joined(await self._watch.look(), None)
            self._failed = None
            return found
        except Exception as error:  # the boundary of a topic: its subscribers are told, the others go on
            told = (
                error
                if isinstance(error, MeleteError)
                else ServerError(f"It failed ({type(error).__name__}).")
            )
            if not isinstance(error, MeleteError):
                log.exception("the topic %s failed", self.name)
            message = Message(frame(self.name, problem(told, 500, "crash")), whole=True)
            again = message.text == self._failed
            self._failed = message.text
            return None if again else message, message
