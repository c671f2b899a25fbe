"""The hub: which paths can be watched, who watches what, and one poller for each topic that somebody watches.

    hub.add("/api/v1", api, root="/api/v1")     paths of the API, below its root
    hub.add("/parts", ui)                       pieces of pages

A topic is a GET path with its query. It is polled once for all clients of one role, however many there are, and not at
all without any. Everything runs in the server's event loop; what reads files does so in a thread.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Protocol

from starlette.types import ASGIApp

from melete import find
from melete.access import Role, Who
from melete.api.live.client import Client
from melete.api.live.poller import Poller
from melete.api.live.topic import Place, Topic, frame, parse, problem
from melete.api.live.watch import Answers, Message, Watch
from melete.api.store import Store
from melete.errors import ConfigError, MeleteError, StorageError, UnknownNameError

KINDS = "melete.api.live.topics"
MOST_TOPICS = 64
CHECK_S = 5.0
STUCK_S = 30.0
TRY_AGAIN, SIGN_IN = 1013, 4401


class Connection(Protocol):
    """What the hub knows of a socket."""

    who: Who

    async def close(self, code: int, reason: str) -> None:
        """Ends it, also where the other end does not read."""

    async def still_valid(self) -> bool:
        """Whether who opened it may keep it."""


class Hub:
    """Topics of one server.

    Args:
        store: where the runs are.
        check_s: seconds between two looks at the clients.
        stuck_s: seconds after which one that does not read is dropped.
    """

    def __init__(self, store: Store, *, check_s: float = CHECK_S, stuck_s: float = STUCK_S) -> None:
        self._store = store
        self._check_s, self._stuck_s = check_s, stuck_s
        self._places: list[Place] = []
        self._kinds: list[ModuleType] = [
            find.load(KINDS, name, "kind of topic") for name in find.names(KINDS)
        ]
        self._pollers: dict[tuple[str, Role], Poller] = {}
        self._connections: dict[Client, Connection] = {}
        self._guard: asyncio.Task[None] | None = None

    def add(self, prefix: str, app: ASGIApp, *, root: str = "") -> None:
        """Lets the paths below a prefix be watched.

        Args:
            prefix: such as `/parts`.
            app: what answers them.
            root: where the application is mounted.
        """
        self._places.append(Place(prefix, app, root))

    def topic(self, name: object, who: Who) -> Topic:
        """The topic of a name.

        Raises:
            ConfigError: it is no path.
            UnknownNameError: nothing here has paths like it.
        """
        return parse(name, self._places, who)

    def enter(self, connection: Connection) -> Client:
        """A client that may subscribe."""
        client = Client(
            connection.who, lambda client, topic: self._pollers[topic, client.who.role].add(client)
        )
        self._connections[client] = connection
        if self._guard is None:
            self._guard = asyncio.create_task(self._watch_clients(), name="live clients")
        return client

    def leave(self, client: Client) -> None:
        """Forgets a client."""
        for topic in list(client.topics):
            self.unsubscribe(client, topic)
        self._connections.pop(client, None)
        if not self._connections and self._guard is not None:
            self._guard.cancel()
            self._guard = None

    def subscribe(self, client: Client, name: object) -> None:
        """Sends a client the whole of a topic, and then what is new; what cannot be watched is told on the topic."""
        try:
            topic = self.topic(name, client.who)
            if topic.text not in client.topics and len(client.topics) >= MOST_TOPICS:
                raise ConfigError(
                    f"A connection watches {MOST_TOPICS} topics at most.",
                    next_step="Unsubscribe from some, or open another connection.",
                )
        except MeleteError as error:
            status = 404 if isinstance(error, UnknownNameError) else 400
            told = str(name)[:200]
            client.put(told, Message(frame(told, problem(error, status)), whole=True))
            return
        client.topics.add(topic.text)
        self._poller(topic).add(client)

    def unsubscribe(self, client: Client, name: object) -> None:
        """Sends a client nothing more of a topic."""
        if not isinstance(name, str) or name not in client.topics:
            return
        client.topics.discard(name)
        client.drop(name)
        key = (name, client.who.role)
        poller = self._pollers[key]
        poller.remove(client)
        if poller.empty:
            del self._pollers[key]

    @property
    def watched(self) -> list[str]:
        """Topics that are polled now."""
        return sorted(topic for topic, _ in self._pollers)

    @property
    def clients(self) -> int:
        """How many there are."""
        return len(self._connections)

    def _poller(self, topic: Topic) -> Poller:
        key = (topic.text, topic.who.role)
        if key not in self._pollers:
            self._pollers[key] = Poller(topic.text, self._watch(topic))
        return self._pollers[key]

    def _watch(self, topic: Topic) -> Watch:
        for kind in self._kinds:
            watch: Watch | None = kind.watch(topic, self._store)
            if watch is not None:
                return watch
        return Answers(topic)

    async def _watch_clients(self) -> None:
        """Ends connections of clients that do not read, and of those who may not any more."""
        while True:
            await asyncio.sleep(self._check_s)
            for client, connection in list(self._connections.items()):
                if client.stuck_s > self._stuck_s:
                    await connection.close(TRY_AGAIN, f"Nothing was read for {self._stuck_s:.0f} s.")
                elif not await _still_valid(connection):
                    await connection.close(SIGN_IN, "The token or sign-in is not valid any more.")


async def _still_valid(connection: Connection) -> bool:
    """Whether a connection may stay; while nobody can be asked, it may."""
    try:
        return await connection.still_valid()
    except StorageError:
        return True
