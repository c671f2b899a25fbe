"""CPU that our door, auth and capture add to a request through LiteLLM: two proxies in pairs, with them and without.

    python benchmarks/gateway_overhead.py [--pairs 60] [--requests 8]

Both are the same LiteLLM with the same providers, settings and environment, started the same way; one has our hook and
is asked with a session's key, the other LiteLLM's own auth and its master key. They answer the same requests in turns
from one scripted upstream in a process of its own, a few at a time, and who is first alternates: what else the machine
does then falls on both. Counted is the CPU time of the whole LiteLLM process as the kernel's scheduler saw it. Told
are medians over all pairs, with a 95 % bootstrap interval of the difference. Goal: under 1 ms added. Limit: one
connection at a time, so what queues under load is not in it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import peer
from melete import settings as configured
from melete.gateway import config, environment, program, sessions, supervise
from melete.gateway.issuers.embedded import EmbeddedIssuer
from melete.gateway.provider import Provider
from melete.store import database

GOAL_MS = 1.0
WARM_UP = 40
MODEL = "echo"
PROMPT = "the quick brown fox jumps over the lazy dog " * 20
"""Some 180 tokens; the scripted upstream says its last 20 words, so a stream has 22 chunks."""
UPSTREAM = """
import sys
from melete.gateway.echo.server import Echo
from melete.gateway.echo.script import Reply, Script
echo = Echo(Script(turns=[Reply(text="word " * 20)]))
print(echo.port, flush=True)
echo.run()
"""


@dataclass(frozen=True)
class Proxy:
    """A LiteLLM that runs, and a key that it takes."""

    name: str
    pid: int
    port: int
    key: str

    def cpu_ms(self) -> float:
        """CPU time of all its threads so far, to the nanosecond that the scheduler counts."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6

    def ask(self, count: int, *, stream: bool) -> float:
        """Sends requests one after the other; CPU milliseconds for each."""
        body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": PROMPT}]}
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        before = self.cpu_ms()
        for _ in range(count):
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status == 200, said[:500]
        time.sleep(0.05)  # what LiteLLM does after an answer belongs to it
        spent = self.cpu_ms() - before
        connection.close()
        return spent / count


@contextmanager
def upstream() -> Iterator[int]:
    """A scripted upstream in a process of its own; its port."""
    with subprocess.Popen([sys.executable, "-c", UPSTREAM], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield int(child.stdout.readline())
        finally:
            child.terminate()


@contextmanager
def proxy(folder: Path, port: int, *, ours: bool) -> Iterator[Proxy]:
    """LiteLLM as the supervisor starts it, with our hook or with its own auth."""
    folder.mkdir(parents=True)
    settings = configured.load({**os.environ, "MELETE_HOME": str(folder)}, folder)
    price = {"model": MODEL, "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    url = f"http://127.0.0.1:{port}/v1"
    provider = Provider.model_validate(
        {"name": "echo", "kind": "echo", "base_url": url, "models": {MODEL: price}}
    )
    document = config.document([provider], url)
    key = f"sk-{secrets.token_urlsafe(32)}"
    if ours:
        with database.opened(settings.database) as engine:
            with engine.begin() as connection:
                session = sessions.open_session(connection, expires_s=time.time() + 3600)
            key = EmbeddedIssuer(engine).issue(session.id, [MODEL], time.time() + 3600).key
    else:
        for name in ("custom_auth", "custom_auth_run_common_checks"):
            del document["general_settings"][name]
        document["litellm_settings"]["callbacks"] = ["prometheus"]
        del document["litellm_settings"]["enable_post_custom_auth_checks"]
    settings.gateway.mkdir(exist_ok=True)
    (settings.gateway / "config.yaml").write_text(config.text(document), encoding="utf-8")
    with socket.socket() as listener, (folder / "log").open("wb") as log:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        environ = {
            **{name: os.environ[name] for name in supervise.PASSED_ON if name in os.environ},
            **supervise.QUIET,
            "AIOHTTP_KEEPALIVE_TIMEOUT": str(config.keepalive_s([provider])),
            environment.DATABASE: settings.database,
            environment.SPOOL: str(settings.gateway / "spool"),
            environment.WARM_KEY_HASH: sha256(b"none").hexdigest(),
            environment.MASTER_KEY: "sk-unused" if ours else key,
            environment.LISTEN_FD: str(listener.fileno()),
        }
        launch = Path(supervise.__file__).with_name("launch.py")
        python = program.find(settings).python
        child = subprocess.Popen(
            [str(python), "-I", "-u", str(launch), str(settings.gateway / "config.yaml")],
            stdin=subprocess.PIPE, stdout=log, stderr=log, env=environ, cwd=folder, pass_fds=[listener.fileno()],
        )  # fmt: skip
        try:
            started = Proxy("ours" if ours else "plain", child.pid, listener.getsockname()[1], key)
            _wait(started, child, folder / "log")
            yield started
        finally:
            child.terminate()
            child.wait(30)


def _wait(started: Proxy, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert child.poll() is None, log.read_text()[-2000:]
        try:
            connection = http.client.HTTPConnection("127.0.0.1", started.port, timeout=5)
            connection.request("GET", "/health/liveliness")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("a proxy did not come up")


def measure(pair: list[Proxy], pairs: int, requests: int) -> dict[str, Any]:
    """Medians over pairs of short turns, and of the differences within each pair."""
    for one in pair:
        one.ask(WARM_UP, stream=False)
        one.ask(WARM_UP, stream=True)
    found: dict[str, Any] = {}
    for name, stream in (("whole", False), ("stream", True)):
        spent: dict[str, list[float]] = {one.name: [] for one in pair}
        for number in range(pairs):
            for one in pair if number % 2 else pair[::-1]:
                spent[one.name].append(one.ask(requests, stream=stream))
        added = [ours - plain for ours, plain in zip(spent["ours"], spent["plain"], strict=True)]
        low, high = interval(added)
        found[name] = {
            "plain_cpu_ms": round(statistics.median(spent["plain"]), 3),
            "ours_cpu_ms": round(statistics.median(spent["ours"]), 3),
            "added_cpu_ms": round(statistics.median(added), 3),
            "interval_ms": [round(low, 3), round(high, 3)],
            "requests": requests * pairs,
        }
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of a median."""
    drawn = random.Random(0)
    medians = sorted(statistics.median(drawn.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[1949]


def main() -> None:
    """Measures, prints, and writes a results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--requests", type=int, default=8, help="Requests of one turn.")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(upstream())
        pair = [
            stack.enter_context(proxy(folder / name, port, ours=name == "ours")) for name in ("plain", "ours")
        ]
        found = measure(pair, chosen.pairs, chosen.requests)
    for name, figures in found.items():
        verdict = "meets" if figures["added_cpu_ms"] < GOAL_MS else "misses"
        print(
            f"{name:7} plain {figures['plain_cpu_ms']:7.2f}  ours {figures['ours_cpu_ms']:7.2f}  "
            f"added {figures['added_cpu_ms']:6.2f} ms CPU a request, 95 % {figures['interval_ms']} "
            f"({verdict} the goal of {GOAL_MS:g} ms)"
        )
    pairs = {"pairs": chosen.pairs, "requests_a_turn": chosen.requests, "goal_added_cpu_ms": GOAL_MS}
    peer.save_result("gateway_overhead", {"system": peer.system(), **pairs, **found})


if __name__ == "__main__":
    main()
