"""How long pages of agents and bench take with large stores: a million requests, a run of 100,000 episodes.

Asked through the whole application (pages, API, queries, templates) in process, without a socket. The traces are
100,000 episodes of five steps in one file, which the first answers index a tenth of a second at a time; the requests
are those of `api_pages.py`. The goal is a 95th percentile under 200 ms for any list or detail page, in wall time of
one client; CPU time stands beside it, which a busy machine does not stretch. A report that compares variants is asked
for by its page when that stands, and is no part of this.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

import api_pages
import peer
from melete.api.ask import ask
from melete.api.whole import mounts
from melete.runs import folder
from melete.settings import Settings
from melete.store import index

GOAL_MS = 200.0
STEPS = 5


def fill_run(settings: Settings, episodes: int) -> str:
    """Writes a run whose trace holds many episodes, mixed as they are when they are played at once."""
    path, record = folder.create(settings, "agents.train", name="large")
    (path / "config.yaml").write_text("scenario: customer_support\nbase: none\n")
    rate = [0.6, 0.55, 0.65]
    row = {"split": "held_out", "decoding": "free", "tasks": 300, "tool_calls": 900, "tool_calls_ok": 540,
           "reliability": rate, "success": rate}  # fmt: skip
    record.result = {"before": [row], "after": [row]}
    folder.write(path, record)
    index.record(settings, path)
    (path / "traces").mkdir()
    with (path / "traces" / "rollouts.jsonl").open("w") as file:
        for first in range(0, episodes, 100):
            for step in range(1, STEPS + 1):
                for number in range(first, min(first + 100, episodes)):
                    call = {"type": "tool", "name": "get_order", "arguments": {"order": number}}
                    line = {
                        "time_s": 1.79e9 + first + step, "step": step, "run": record.id,
                        "episode": f"{first // 100}.{number % 16}-{number}", "observation": "Where is my order? " * 5,
                        "proposed": call, "verdict": "refuse" if (number + step) % 17 == 0 else "allow",
                        "executed": None if (number + step) % 17 == 0 else call, "result": '{"status": "sent"}',
                        "reward": 0.1, "ok": (number + step) % 17 != 0,
                    }  # fmt: skip
                    if step == 1:
                        line |= {"task": f"train-0-{number % 4096}", "split": "train"}
                    if step == STEPS:
                        line["solved"] = number % 3 != 0
                    file.write(json.dumps(line) + "\n")
    return record.id


def pages(run: str, episode: str, sessions: int, chance: random.Random) -> dict[str, tuple[str, str]]:
    """Kind of page to its path and query."""
    session = f"s-{chance.randrange(sessions):08d}"
    return {
        "agents": ("/agents", ""),
        "scenario": ("/agents/customer_support", ""),
        "tasks": ("/agents/customer_support", "tab=tasks"),
        "runs of a scenario": ("/agents/customer_support", "tab=runs"),
        "proof": (f"/agents/runs/{run}", ""),
        "episodes": (f"/agents/runs/{run}", "tab=episodes"),
        "episodes, stopped and not solved": (f"/agents/runs/{run}", "tab=episodes&stopped=true&solved=false"),
        "episodes of a task": (f"/agents/runs/{run}", f"tab=episodes&task=train-0-{chance.randrange(4096)}"),
        "episodes, none matches": (f"/agents/runs/{run}", "tab=episodes&split=none"),
        "episode": (f"/agents/runs/{run}/episodes/{episode}", ""),
        "bench": ("/bench", ""),
        "bench, live part": ("/parts/bench/now", ""),
        "sessions": ("/bench/sessions", ""),
        "sessions of a variant": ("/bench/sessions", "variant=careful&solved=true"),
        "session": (f"/bench/sessions/{session}", ""),
        "variants": ("/bench/texts/variants", ""),
        "compare": ("/bench/compare", ""),
    }


async def measure(settings: Settings, run: str, sessions: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of each kind of page: median and 95th percentile of wall time, median of CPU time."""
    app = Starlette(routes=[Mount(path, one) for path, one in mounts(settings).items()])
    answers, complete = 0, False
    began_s = time.process_time()
    while not complete:
        page = (await ask(app, "GET", f"/api/v1/runs/{run}/episodes", query={"limit": 1})).json()
        answers, complete = answers + 1, page["complete"]
    indexed_s = time.process_time() - began_s
    chance, wall, cpu = random.Random(3), dict[str, list[float]](), dict[str, list[float]]()
    experiment = (await ask(app, "GET", "/api/v1/experiments", query={"limit": 1})).json()["data"][0]["id"]
    for number in range(rounds + 1):
        asked = pages(run, page["data"][0]["id"], sessions, chance) | {
            "experiment": (f"/bench/experiments/{experiment}", "")
        }
        for kind, (path, query) in asked.items():
            started_s, used_s = time.perf_counter(), time.process_time()
            answer = await ask(app, "GET", path, query=query)
            assert answer.status == 200, (path, answer.body[-2_000:])
            if number:  # the first round imports
                wall.setdefault(kind, []).append((time.perf_counter() - started_s) * 1e3)
                cpu.setdefault(kind, []).append((time.process_time() - used_s) * 1e3)
    found = {
        kind: {
            "p50_ms": round(statistics.median(times), 1),
            "p95_ms": round(sorted(times)[max(0, -(-len(times) * 95 // 100) - 1)], 1),
            "cpu_p50_ms": round(statistics.median(cpu[kind]), 1),
        }
        for kind, times in wall.items()
    }
    worst = max(found, key=lambda name: found[name]["p95_ms"])
    return {
        "index": {"answers": answers, "cpu_s": round(indexed_s, 1)},
        "worst": worst, "worst_p95_ms": found[worst]["p95_ms"], "by_page": found,
    }  # fmt: skip


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        settings = Settings.of(home)
        api_pages.fill(settings, args.requests)
        run = fill_run(settings, args.episodes)
        found = asyncio.run(measure(settings, run, max(1, args.requests // 50), args.rounds))
    head = {
        "system": peer.system(),
        "requests": args.requests,
        "episodes": args.episodes,
        "goal_p95_ms": GOAL_MS,
    }
    peer.save_result("agents_pages", {**head, **found, "load_after": round(os.getloadavg()[0], 1)})


if __name__ == "__main__":
    main()
