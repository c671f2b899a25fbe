"""A real server of the API in a thread, real WebSocket clients on it, and a run whose files a test writes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp
from websockets.sync.client import ClientConnection, connect

from melete.records import RunState
from melete.runs import folder
from melete.serve import listen
from melete.settings import Settings

LONGEST_S = 20.0


@contextmanager
def served(app: ASGIApp, settings: Settings, port: int = 0) -> Iterator[str]:
    """Serves an application as `melete serve` would; yields its URL."""
    listener = listen.bind("127.0.0.1", port, settings)
    server, up = listen.Uvicorn.of(app), threading.Event()
    server.on_ready = up.set
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert up.wait(LONGEST_S)
        yield listen.url_of(listener)
    finally:
        server.should_exit = True
        thread.join(LONGEST_S)


class Watcher:
    """A client of `/live`: subscribes, and waits for messages.

    Args:
        url: of the server.
        path: of the socket.
    """

    def __init__(self, url: str, path: str = "/api/v1/live", **options: Any) -> None:
        self._opened = connect(url.replace("http", "ws", 1) + path, **options)
        self.socket: ClientConnection = self._opened.__enter__()
        self.seen: list[tuple[str, Any]] = []

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def subscribe(self, *topics: Any) -> None:
        """Asks for topics."""
        self.socket.send(json.dumps({"subscribe": topics}))

    def next(self, topic: str | None = None) -> Any:
        """The payload of the next message, of one topic if one is named."""
        until_s = time.monotonic() + LONGEST_S
        while True:
            found, payload = json.loads(self.socket.recv(max(0.0, until_s - time.monotonic())))
            self.seen.append((found, payload))
            if topic in (None, found):
                return payload

    def until(self, topic: str, wanted: Callable[[Any], bool]) -> Any:
        """The first payload of a topic that is wanted."""
        while not wanted(payload := self.next(topic)):
            continue
        return payload


class Curve:
    """What a chart makes of the messages of a topic with one figure: its steps, in order."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.wholes = 0

    def take(self, payload: Any) -> list[float]:
        """Adds a message; returns all steps."""
        kind, curves = next(iter(payload.items()))
        new = [step for figure in curves["figures"] for step in figure["steps"]]
        self.wholes += kind == "whole"
        self.steps = new if kind == "whole" else self.steps + new
        return self.steps


def empty_run(settings: Settings, name: str = "watched") -> Path:
    """The folder of a run that says it is running, in this process, and has written nothing."""
    path, record = folder.create(settings, "trial.count", name=name)
    folder.set_state(path, record, RunState.RUNNING)
    return path


def add_points(run: Path, first: int, count: int = 1, key: str = "loss") -> None:
    """Appends rows to the metrics of a run."""
    with (run / "metrics.jsonl").open("a") as file:
        for step in range(first, first + count):
            file.write(json.dumps({"step": step, "time_s": 1.0 + step, key: 1 / (1 + step)}) + "\n")


def add_lines(run: Path, first: int, count: int = 1) -> None:
    """Appends numbered lines to the log of a run."""
    with (run / "log.txt").open("a") as file:
        file.write("".join(f"line {number}\n" for number in range(first, first + count)))
