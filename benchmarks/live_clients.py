"""What watching costs a server: clients on one run whose figures grow ten times a second, five topics each.

Each round starts a server (`melete serve --no-model`) on a fresh home with one run, to which this program appends ten
rows of metrics and one line of log a second. The clients are plain WebSockets in this process that subscribe to what a
run's page shows: its curves, its log, its record, the part of the page that is its head, and the status. CPU is the
server's user and system time over a stretch in which nobody comes or goes, as a share of one core; memory is what its
resident set grew by from one client to all, for each. Latency is from just before a row is written to when a client has
parsed the message with it: the looks at the file, ten a second, are half of it and more. As a cross-check some pages of
the run are opened in headless Chromium, if it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

import peer
from melete.records import RunState
from melete.runs import folder
from melete.settings import Settings
from melete.store import index

GOAL_CPU, GOAL_MB = 0.10, 0.3
PERIOD_S = 0.1
KEYS = ("loss", "val_loss", "lr", "tokens_per_s", "grad_norm")
BEFORE = 5_000
"""Rows that are there when the first client comes."""


@dataclass
class Watched:
    """What one client saw.

    Attributes:
        latencies_ms: of each row.
        messages: of all topics.
        steps: of the first figure, in order.
    """

    latencies_ms: list[float] = field(default_factory=list)
    messages: int = 0
    steps: list[float] = field(default_factory=list)


class Server:
    """A server in a process of its own."""

    def __init__(self, home: Path) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "melete", "serve", "--no-model", "--port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "MELETE_HOME": str(home), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self.child.stdout is not None
        said = ""
        for line in self.child.stdout:
            said += line
            if found := re.search(r"(http://[0-9.]+:\d+)", said):
                self.page = found[1]
                self.url = found[1].replace("http", "ws", 1) + "/api/v1/live"
            if line.startswith("Stop with"):
                return
        raise SystemExit(f"the server did not start:\n{said}")

    def cpu_s(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Resident set."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def stop(self) -> None:
        """Ends it."""
        self.child.kill()
        self.child.communicate()


def row(step: int) -> str:
    """A row of metrics, stamped with the time at which it is written."""
    values = {key: round(2.0 + (step * 7 % 100) / 100, 4) for key in KEYS}
    return json.dumps({"step": step, "time_s": time.time(), **values}) + "\n"


async def write(run: Path, first: int) -> None:
    """Appends ten rows a second, and a line of log each second, for ever."""
    due_s = time.monotonic()
    with (
        (run / "metrics.jsonl").open("a", buffering=1) as metrics,
        (run / "log.txt").open("a", buffering=1) as log,
    ):
        while True:
            metrics.write(row(first))
            if first % 10 == 0:
                log.write(f"12:00:00 step {first}: loss 2.345, 12,345 tokens a second\n")
            first += 1
            due_s += PERIOD_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))


async def watch(socket: Any, topics: list[str], seen: Watched) -> None:
    """One client."""
    await socket.send(json.dumps({"subscribe": topics}))
    async for message in socket:
        topic, payload = json.loads(message)
        now_s = time.time()
        seen.messages += 1
        if topic != topics[0]:
            continue
        assert "error" not in payload, payload
        curve = next(iter(payload.values()))["figures"][0]
        seen.steps += curve["steps"] if "more" in payload else [-1.0]
        if "more" in payload:
            seen.latencies_ms += [(now_s - time_s) * 1e3 for time_s in curve["times_s"]]


async def measure(
    server: Server, run: Path, topics: list[str], clients: int, seconds: float
) -> dict[str, Any]:
    """The figures for a number of clients."""
    seen = [Watched() for _ in range(clients)]
    async with AsyncExitStack() as stack:
        writer = asyncio.create_task(write(run, BEFORE))
        tasks = []
        for number, one in enumerate(seen):
            socket = await stack.enter_async_context(connect(server.url, compression=None, max_size=None))
            tasks.append(asyncio.create_task(watch(socket, topics, one)))
            if number == 0:
                await asyncio.sleep(6.0)  # all that is made once is made now
                alone_mb = server.memory_mb()
        await asyncio.sleep(3.0)
        for one in seen:
            one.latencies_ms.clear()
        before_s, began_s, messages = server.cpu_s(), time.monotonic(), sum(one.messages for one in seen)
        await asyncio.sleep(seconds)
        cpu = (server.cpu_s() - before_s) / (time.monotonic() - began_s)
        all_mb = server.memory_mb()
        sent = sum(one.messages for one in seen) - messages
        for task in [writer, *tasks]:
            assert not task.done() or task.exception() is None, task.exception()
            task.cancel()
    for one in seen:
        curve = one.steps[1:]
        assert curve == [curve[0] + n for n in range(len(curve))], "lost, doubled, or sent whole again"
    latencies = sorted(latency for one in seen for latency in one.latencies_ms)
    return {
        "clients": clients,
        "cpu_of_one_core": round(cpu, 4),
        "mb_per_client": round((all_mb - alone_mb) / (clients - 1), 3) if clients > 1 else None,
        "server_mb": round(all_mb, 1),
        "messages_per_s": round(sent / seconds, 1),
        "latency_p50_ms": round(statistics.median(latencies), 1),
        "latency_p95_ms": round(latencies[int(len(latencies) * 0.95)], 1),
        "rows_seen_by_each": round(len(latencies) / clients, 1),
    }


async def browse(server: Server, run: Path, pages: int, seconds: float) -> dict[str, Any]:
    """The figures for pages of the run in headless Chromium, each in a profile of its own."""
    from playwright.async_api import async_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    async with async_playwright() as play, AsyncExitStack() as stack:
        browser = await play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        stack.push_async_callback(browser.close)
        writer = asyncio.create_task(write(run, BEFORE))
        alone_mb = 0.0
        for number in range(pages):
            tab = await (await browser.new_context()).new_page()
            await tab.goto(f"{server.page}/runs/{run.name}")
            await tab.wait_for_selector("html[data-conn=live]", timeout=60_000)
            if number == 0:
                await asyncio.sleep(6.0)
                alone_mb = server.memory_mb()
        await asyncio.sleep(3.0)
        before_s, began_s = server.cpu_s(), time.monotonic()
        await asyncio.sleep(seconds)
        cpu = (server.cpu_s() - before_s) / (time.monotonic() - began_s)
        all_mb = server.memory_mb()
        writer.cancel()
    return {
        "browser_pages": pages,
        "cpu_of_one_core": round(cpu, 4),
        "mb_per_client": round((all_mb - alone_mb) / (pages - 1), 3) if pages > 1 else None,
        "server_mb": round(all_mb, 1),
    }


def one_round(clients: int, seconds: float, *, browsers: bool = False) -> dict[str, Any]:
    """A fresh home, run and server, and the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        settings = Settings.of(home)
        run, record = folder.create(settings, "llm.pretrain", name="watched")
        folder.set_state(run, record, RunState.RUNNING)
        (run / "metrics.jsonl").write_text("".join(row(step) for step in range(BEFORE)))
        index.record(settings, run)
        own = f"/api/v1/runs/{run.name}"
        topics = [f"{own}/metrics?keys={','.join(KEYS)}", f"{own}/log", own, f"/parts/runs/{run.name}/head",
                  "/api/v1/status"]  # fmt: skip
        server = Server(home)
        try:
            if browsers:
                return asyncio.run(browse(server, run, clients, seconds))
            return asyncio.run(measure(server, run, topics, clients, seconds))
        finally:
            server.stop()


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--seconds", type=float, default=15.0, help="of measuring, each round")
    parser.add_argument("--browser-pages", type=int, default=6, help="real pages in Chromium; 0 for none")
    parser.add_argument("--dry-run", action="store_true", help="write no result")
    args = parser.parse_args()
    found = []
    for clients in args.clients:
        found.append(one_round(clients, args.seconds))
        print(json.dumps(found[-1]))
    if args.browser_pages:
        found.append(one_round(args.browser_pages, args.seconds, browsers=True))
        print(json.dumps(found[-1]))
    result = {
        "system": peer.system(),
        "goals": {"cpu_of_one_core": GOAL_CPU, "mb_per_client": GOAL_MB},
        "period_s": PERIOD_S,
        "topics": 5,
        "figures": len(KEYS),
        "rounds": found,
        "load_after": round(os.getloadavg()[0], 1),
    }
    if not args.dry_run:
        peer.save_result("live_clients", result)


if __name__ == "__main__":
    main()
