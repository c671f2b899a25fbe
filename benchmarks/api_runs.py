"""How long a page over a large lab takes: 100,000 runs in the index, 10,000,000 stored metric points, SQLite.

The index holds 100,000 runs of 4 processes over 300 days, 40 of them called running by an index that was not told of
their end. 200 of the newest have folders with a config, a log and checkpoints; one of them has 10,000,000 metric
points (1,000,000 steps of 10 figures), one a log of 50 MB; a data set has 100,000 rows; the queue has 10,000 jobs of
three processes. Each kind of page is asked
through the whole application (routing, validation, reading, JSON, ETag) without a socket. The goals are 95th
percentiles in wall time of one client: 50 ms for the status, 200 ms for every list and detail page; CPU time stands
beside it, which a busy machine does not stretch. How long the first look at the ten million points takes, until all
are read, is told apart: each of its answers is bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert

import peer
from melete.api import columns
from melete.api.app import create_app
from melete.datasets import adding
from melete.jobs import queue
from melete.jobs.home import home_id
from melete.records import CheckpointRecord, RunRecord, RunState
from melete.runs import folder as folders
from melete.settings import Settings
from melete.store import database, index
from melete.store.models import RunRow, table

STATUS_GOAL_MS, PAGE_GOAL_MS = 50.0, 200.0
NOW_S = 1_795_000_000.0
SPAN_S = 300 * 86_400.0
PROCESSES = ("llm.pretrain", "llm.sft", "llm.evaluate", "agents.train")
FIGURES = tuple(f"figure_{number}" for number in range(10))
FOLDERS = 200
JOBS = 10_000
BATCH = 20_000


def run_ids(count: int) -> list[str]:
    """Ids of runs, oldest first."""
    stamps = (NOW_S - SPAN_S + SPAN_S * at / count for at in range(count))
    return [
        f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(at_s))}-run-{number % 65_536:04x}"
        for number, at_s in enumerate(stamps)
    ]


def fill(settings: Settings, runs: int, steps: int) -> list[str]:
    """Writes the lab; returns the ids of the runs that have folders, newest last."""
    ids, own = run_ids(runs), index.location(settings)
    rows = [
        {
            "location": own, "id": run, "process": PROCESSES[at % 4],
            "state": "running" if at % (runs // 40) == 7 else "failed" if at % 10 == 3 else "succeeded",
            "name": f"trial {at % 500}", "job": None, "created_s": NOW_S - SPAN_S + SPAN_S * at / runs,
            "ended_s": NOW_S - SPAN_S + SPAN_S * at / runs + 600, "step": 1_000, "last": {"loss": 2.5, "lr": 1e-3},
            "error": None,
        }
        for at, run in enumerate(ids)
    ]  # fmt: skip
    with database.connect(settings.database) as connection:
        for start in range(0, len(rows), BATCH):
            connection.execute(insert(table(RunRow)), rows[start : start + BATCH])
    for row in rows[-FOLDERS:]:
        path = settings.runs / row["id"]
        path.mkdir(parents=True)
        folders.write(path, RunRecord(row["id"], row["process"], RunState.SUCCEEDED, row["created_s"]))
        (path / "config.yaml").write_text("".join(f"option_{n}: {n}\n" for n in range(60)))
        (path / "log.txt").write_text("".join(f"12:00:00 step {n} of many\n" for n in range(2_000)))
        saved = path / "checkpoints" / "step_00001000"
        saved.mkdir(parents=True)
        record = CheckpointRecord(
            1, "llm", 1_000, {"depth": 4}, {}, {}, {"model.safetensors": (10, "0" * 64)}
        )
        (saved / "checkpoint.json").write_text(json.dumps(asdict(record)))
        write_metrics(path, 100)
    fill_queue(settings)
    known = ids[-FOLDERS:]
    write_metrics(settings.runs / known[-1], steps)
    with (settings.runs / known[-2] / "log.txt").open("a") as file:
        for number in range(1_250_000):
            file.write(
                f"12:00:00 {'warning' if number % 99_999 == 0 else 'all is'} well, line {number:07d}\n"
            )
    rows_file = settings.home / "numbers.jsonl"
    rows_file.write_text("".join(f'{{"number": {n}, "word": "the number {n}"}}\n' for n in range(100_000)))
    adding.add(rows_file, settings, name="numbers")
    return known


def fill_queue(settings: Settings) -> None:
    """Writes jobs of three processes, a hundred of which wait."""
    home, jobs, steps = home_id(settings), [], []
    for number in range(JOBS):
        job, at_s = f"20261120-120000-many-{number:05d}", NOW_S - JOBS + number
        state = "queued" if number % 100 == 7 else "failed" if number % 10 == 3 else "succeeded"
        jobs.append(
            {
                "id": job, "home": home, "name": f"many {number % 50}", "file": "", "cwd": "/", "priority": 0,
                "state": state, "wanted": "run", "wanted_s": at_s, "created_s": at_s, "tries": 1,
            }
        )  # fmt: skip
        for place, name in enumerate(("base", "chat", "exam")):
            steps.append(
                {
                    **queue.FRESH, "job_id": job, "number": place, "name": name, "process": "llm.sft", "config": {},
                    "limit_batches": None, "after": [], "executor": "local", "device": "any", "slots": 1,
                    "needs": {"device": "any", "slots": 1}, "retries": 1, "priority": 0, "created_s": at_s,
                    "state": state,
                }
            )  # fmt: skip
    with database.connect(settings.database) as connection:
        for start in range(0, len(jobs), BATCH):
            connection.execute(insert(queue.JOBS), jobs[start : start + BATCH])
        for start in range(0, len(steps), BATCH):
            connection.execute(insert(queue.STEPS), steps[start : start + BATCH])


def write_metrics(run: Path, steps: int) -> None:
    """Writes a run's metrics as `run.log` does, with ten figures at each step."""
    chance = random.Random(1)
    some = [", ".join(f'"{name}": {chance.random():.6f}' for name in FIGURES) for _ in range(997)]
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(steps):
            file.write(f'{{"step": {step}, "time_s": {NOW_S + step:.3f}, {some[step % 997]}}}\n')


def pages(chance: random.Random, known: list[str], steps: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Kind of page to a path and its parameters, at random places."""
    at_s, run, large = NOW_S - chance.random() * SPAN_S, chance.choice(known[:-2]), known[-1]
    process, start = chance.choice(PROCESSES), chance.randrange(steps // 2)
    return {
        "status": ("/status", {}),
        "runs": ("/runs", {}),
        "runs, 200": ("/runs", {"limit": 200}),
        "runs, deep": ("/runs", {"until_s": at_s}),
        "runs by process": ("/runs", {"process": process, "until_s": at_s}),
        "runs by state": ("/runs", {"state": "failed", "until_s": at_s}),
        "runs by name": ("/runs", {"name": f"trial {chance.randrange(500)}"}),
        "runs by no name": ("/runs", {"name": "none"}),
        "run": (f"/runs/{run}", {}),
        "run, large": (f"/runs/{large}", {}),
        "run, unknown": (f"/runs/{run}x", {}),
        "figures": (f"/runs/{run}/metrics", {}),
        "figures, large": (f"/runs/{large}/metrics", {}),
        "curve": (f"/runs/{run}/metrics", {"keys": FIGURES[0]}),
        "curve, large": (f"/runs/{large}/metrics", {"keys": chance.choice(FIGURES)}),
        "10 curves, large": (f"/runs/{large}/metrics", {"keys": ",".join(FIGURES), "max": 1_000}),
        "zoom, large": (
            f"/runs/{large}/metrics", {"keys": FIGURES[1], "from": start, "to": start + steps // 10},
        ),
        "log": (f"/runs/{run}/log", {}),
        "log, large": (f"/runs/{known[-2]}/log", {}),
        "log, search": (f"/runs/{known[-2]}/log", {"search": "WARNING"}),
        "files": (f"/runs/{run}/files", {}),
        "samples": (f"/runs/{run}/samples", {}),
        "lineage": (f"/runs/{run}/lineage", {}),
        "checkpoints": ("/checkpoints", {}),
        "jobs": ("/jobs", {}),
        "jobs, 200": ("/jobs", {"limit": 200}),
        "jobs by state": ("/jobs", {"state": "failed"}),
        "jobs by name": ("/jobs", {"name": f"many {chance.randrange(50)}"}),
        "job": (f"/jobs/20261120-120000-many-{chance.randrange(JOBS):05d}", {}),
        "workers": ("/workers", {}),
        "examples": ("/examples", {}),
        "models": ("/models", {}),
        "model": (f"/models/{run}", {}),
        "datasets": ("/datasets", {}),
        "dataset": ("/datasets/stdlib", {}),
        "rows": ("/datasets/stdlib/rows", {}),
        "rows, deep": ("/datasets/numbers/rows", {"start": chance.randrange(90_000)}),
        "rows, search": ("/datasets/numbers/rows", {"search": f"{chance.randrange(90_000)}"}),
        "processes": ("/processes", {}),
        "process": ("/processes/llm.pretrain", {}),
        "scenarios": ("/scenarios", {}),
        "scenario": ("/scenarios/customer_support", {}),
        "deployments": ("/deployments", {}),
    }  # fmt: skip


async def measure(settings: Settings, known: list[str], rounds: int, steps: int) -> dict[str, Any]:
    """Milliseconds of each kind of page, after one round that fills what is kept, with two pages after each list."""
    chance, app = random.Random(2), create_app(settings)
    wall: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        for number in range(rounds + 1):
            for kind, (path, asked) in pages(chance, known, steps).items():
                for wall_ms, cpu_ms in [one async for one in followed(client, path, asked)]:
                    if number:
                        wall.setdefault(kind, []).append(wall_ms)
                        cpu.setdefault(kind, []).append(cpu_ms)
    app.state.store.close()
    return {
        kind: {
            "pages": len(times),
            "p50_ms": round(statistics.median(times), 1),
            "p95_ms": round(sorted(times)[max(0, -(-len(times) * 95 // 100) - 1)], 1),
            "cpu_p50_ms": round(statistics.median(cpu[kind]), 1),
            "cpu_p95_ms": round(sorted(cpu[kind])[max(0, -(-len(times) * 95 // 100) - 1)], 1),
        }
        for kind, times in wall.items()
    }


async def followed(client: httpx.AsyncClient, path: str, asked: dict[str, Any]) -> Any:
    """Wall and CPU milliseconds of a page and of the two after it."""
    for _ in range(3):
        started_s, used_s = time.perf_counter(), time.process_time()
        answer = await client.get(path, params=asked)
        yield (time.perf_counter() - started_s) * 1e3, (time.process_time() - used_s) * 1e3
        assert answer.status_code in (200, 404), answer.text
        cursor = answer.json().get("next_cursor")
        if cursor is None:
            return
        asked = {**asked, "cursor": cursor}


def first_look(run: Path) -> dict[str, Any]:
    """What it takes to read all figures of a run for the first time."""
    used_s, answers = time.process_time(), list[float]()
    for complete in reading(run):
        answers.append(complete)
    size = (run / "metrics.jsonl").stat().st_size
    kept = sum(file.stat().st_size for file in (run / columns.FOLDER).iterdir())
    return {
        "answers": len(answers),
        "longest_ms": round(max(answers), 1),
        "cpu_s": round(time.process_time() - used_s, 2),
        "megabytes": round(size / 1e6),
        "kept_megabytes": round(kept / 1e6),
    }


def reading(run: Path) -> Iterator[float]:
    """Milliseconds of each answer until all is read."""
    complete = False
    while not complete:
        started_s = time.perf_counter()
        complete = columns.read(run).complete
        yield (time.perf_counter() - started_s) * 1e3


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of the long run, with 10 figures each")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        settings = Settings.of(home)
        known = fill(settings, args.runs, args.steps)
        first = first_look(settings.runs / known[-1])
        gc.collect()
        gc.freeze()  # what made the lab is no load of a server
        found = asyncio.run(measure(settings, known, args.rounds, args.steps))
    others = {kind: figures["p95_ms"] for kind, figures in found.items() if kind != "status"}
    worst = max(others, key=lambda kind: others[kind])
    result = {
        "system": peer.system(),
        "runs": args.runs,
        "points": args.steps * len(FIGURES),
        "jobs": JOBS,
        "goals_p95_ms": {"status": STATUS_GOAL_MS, "page": PAGE_GOAL_MS},
        "status_p95_ms": found["status"]["p95_ms"],
        "worst": worst,
        "worst_p95_ms": others[worst],
        "first_look": first,
        "by_page": found,
        "load_after": round(os.getloadavg()[0], 1),
    }
    peer.save_result("api_runs", result)


if __name__ == "__main__":
    main()
