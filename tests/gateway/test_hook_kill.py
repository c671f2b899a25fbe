"""The proxy is killed with -9 at random moments under load: what a client saw answered is in the store, once.

`MELETE_KILLS` says how often (40 by default). A tenth of the kills hit a real LiteLLM, whose start takes some ten CPU
seconds; the others the same door, keys, recorder and spool before an application that starts at once.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway_at_hand import Lent, lend, need_litellm, providers, settings_in
from melete.gateway import events, process
from melete.gateway.collectors import spool
from melete.gateway.echo.script import Delay, Reply, Script
from melete.gateway.echo.server import Echo
from melete.settings import Settings
from melete.store import database

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]

KILLS = int(os.environ.get("MELETE_KILLS", "40"))
CLIENTS = 4
PATH = "/v1/chat/completions"


class Client(threading.Thread):
    """Sends request after request until it is stopped, and remembers which of them it saw answered to the end."""

    def __init__(self, port: int, key: str, stream: bool) -> None:
        super().__init__(daemon=True)
        self.port, self.key, self.stream = port, key, stream
        self.answered: list[str] = []
        self.begun: list[str] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        body = json.dumps(
            {"model": "echo", "stream": self.stream, "messages": [{"role": "user", "content": "hello there"}]}
        )
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        while not self.stopped.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                connection.request("POST", PATH, body, headers)
                answer = connection.getresponse()
                id = answer.getheader("x-request-id") or ""
                if answer.status == 200:
                    self.begun.append(id)
                    said = answer.read()
                    if b"[DONE]" in said or (not self.stream and json.loads(said)):
                        self.answered.append(id)
            except (OSError, http.client.HTTPException, ValueError):
                self.stopped.wait(0.02)  # it was killed while it answered
            finally:
                connection.close()


def load(port: int, key: str) -> list[Client]:
    clients = [Client(port, key, stream=number % 2 == 1) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    return clients


def stop(clients: list[Client]) -> None:
    for client in clients:
        client.stopped.set()
    for client in clients:
        client.join(90)


def check(settings: Settings, lent: Lent, clients: list[Client]) -> int:
    """Compares what the clients saw with the store; returns how many requests there were."""
    spool.collect(settings)
    spool.collect(settings)
    with database.connect(settings.database) as connection:
        query = f"SELECT id, status FROM request WHERE session_id = '{lent.id}'"
        rows = [(str(id), str(status)) for id, status in connection.exec_driver_sql(query)]
        still_open = connection.exec_driver_sql("SELECT count(*) FROM request_open").scalar()
    status = dict(rows)
    assert len(rows) == len(status)
    told: Counter[str] = Counter()
    for segment in (settings.gateway / "spool").glob("*.jsonl"):
        for line in segment.read_bytes().splitlines():
            event = events.parse(line)
            if event is not None:
                told[f"{event.kind} {event.request}"] += 1
    begins = {name.split()[1] for name in told if name.startswith("begin ")}
    answered = [id for client in clients for id in client.answered]
    assert {id: status.get(id) for id in answered} == dict.fromkeys(answered, "ok")
    assert {id for client in clients for id in client.begun} <= status.keys()
    assert begins == status.keys()
    assert set(status.values()) <= {"ok", "interrupted", "client_abort"}
    assert not [name for name, times in told.items() if times > 1 and not name.startswith("attempt")]
    assert still_open == 0
    return len(answered)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(ready: Callable[[], Any], wait_s: float = 120.0) -> Any:
    deadline = time.monotonic() + wait_s
    while not (found := ready()):
        assert time.monotonic() < deadline, "it did not come up again"
        time.sleep(0.01)
    return found


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def restarts(settings: Settings) -> int:
    told = process.status(settings).account
    return told.restarts if told else 0


def test_killed_door_loses_nothing_that_a_client_saw(tmp_path: Path) -> None:
    settings, port, random_of = settings_in(tmp_path), free_port(), random.Random(7)
    lent = lend(settings, ("echo",))
    start = [sys.executable, str(Path(__file__).parent / "door_alone.py")]
    arguments = [settings.database, str(settings.gateway / "spool"), str(port)]
    clients = load(port, lent.key)
    for _ in range(KILLS - KILLS // 10):
        child = subprocess.Popen([*start, *arguments])
        wait_for(lambda: listens(port))
        time.sleep(random_of.uniform(0.05, 0.25))
        child.kill()
        assert child.wait() == -signal.SIGKILL
    stop(clients)
    assert check(settings, lent, clients) >= KILLS


def test_killed_proxy_loses_nothing_that_a_client_saw(tmp_path: Path) -> None:
    settings, random_of = settings_in(tmp_path), random.Random(8)
    need_litellm(settings)
    slow = Script(turns=[Reply(text="one two three four", delay=Delay(first_s=0.02, token_s=0.01))])
    with Echo(slow) as upstream:
        with process.here(settings, providers(upstream.url)) as gateway:
            lent = lend(settings, ("echo",), expires_in_s=3600)
            clients = load(gateway.port, lent.key)
            for kills in range(1, KILLS // 10 + 1):
                before = sum(len(client.answered) for client in clients)
                wait_for(lambda before=before: sum(len(client.answered) for client in clients) > before + 5)
                time.sleep(random_of.uniform(0.0, 0.5))
                told = process.status(settings).account
                assert told is not None
                assert told.litellm_pid is not None
                os.kill(told.litellm_pid, signal.SIGKILL)
                wait_for(lambda kills=kills: restarts(settings) >= kills)
            before = sum(len(client.answered) for client in clients)
            wait_for(lambda: sum(len(client.answered) for client in clients) > before + 5)
            stop(clients)
        assert check(settings, lent, clients) >= KILLS // 10 * 5
