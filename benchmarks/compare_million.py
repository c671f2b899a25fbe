"""How long it takes to compare two variants over a million stored requests, with exact percentiles and intervals.

Token counts are those of the Azure LLM inference trace of 2023 (28,185 requests of production), repeated; latencies
follow from them. Rows are written straight into the store, 100 requests a session, two attempts at each task card. The
comparison is the whole of `melete bench compare`: resolving the names, reading the packed sessions, every metric with
its interval, pairing by task card and attempt, every difference with its test. Goal: under one second. Filling the
store and computing the rollups (once, when a session is finalised) are shown beside it and are not in the figure.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

import peer
from melete import datasets
from melete.bench import report as reports
from melete.bench import rollups
from melete.errors import DatasetError
from melete.gateway import entities, sessions
from melete.records import SessionState
from melete.store import database

GOAL_S = 1.0
PER_SESSION = 100
ATTEMPTS = 2
START_S = 1_790_000_000.0


def trace() -> list[tuple[int, int]]:
    """Prompt and answer tokens of each request of the trace."""
    found = datasets.registry.open("trace_azure_llm_2023")
    return [
        (int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        for split in found.splits
        for row in found.rows(split)
    ]


def fill(connection: Any, count: int) -> None:
    """Writes two variants with `count` requests in all."""
    draw, tokens = random.Random(0), itertools.cycle(trace())
    cards = count // PER_SESSION // 2 // ATTEMPTS
    variants = [entities.record(connection, "variant", name, {"name": name}) for name in ("before", "after")]
    cells = [(v, card, attempt) for card in range(cards) for attempt in range(ATTEMPTS) for v in (0, 1)]
    opened = sessions.open_many(
        connection,
        (
            {
                "state": SessionState.FINALISED,
                "variant": variants[side],
                "task_card": f"card/{card}",
                "attempt": attempt,
                "created_s": START_S + number,
                "started_s": START_S + number,
                "ended_s": START_S + number + 60,
                "solved": draw.random() < 0.5 + 0.05 * side,
                "metadata": {"host": "one", "load_1m": 0.5, "versions": {"litellm": "1"}},
            }
            for number, (side, card, attempt) in enumerate(cells)
        ),
    )
    blank: dict[str, Any] = {column.name: None for column in rollups.REQUESTS.columns}
    for some in batches(list(zip(opened, cells, strict=True)), 100):
        rows = (
            {**blank, **request(session.id, number, side, *next(tokens), draw)}
            for session, (side, _, _) in some
            for number in range(PER_SESSION)
        )
        connection.execute(rollups.REQUESTS.insert(), list(rows))


def request(
    session_id: str, number: int, side: int, prompt: int, answer: int, draw: random.Random
) -> dict[str, Any]:
    """One request's row; the second variant answers a tenth quicker."""
    ttft_ms = (50 + 0.1 * prompt) * draw.uniform(0.8, 1.2) * (1 - 0.1 * side)
    failed = draw.random() < 0.01
    return {
        "id": f"{session_id}-{number}",
        "session_id": session_id,
        "source": "hook",
        "endpoint": "chat",
        "stream": True,
        "model_asked": "m",
        "model_answered": "m",
        "provider": "openai",
        "status": "error" if failed else "ok",
        "error_class": "rate_limit" if failed else None,
        "attempts": 1,
        "started_s": START_S + number,
        "latency_ms": ttft_ms + answer * draw.uniform(15, 25),
        "ttft_ms": None if failed else ttft_ms,
        "gap_p95_ms": 30 * draw.random(),
        "tokens_in": prompt,
        "tokens_cached": prompt // 4,
        "tokens_out": answer,
        "tokens_estimated": False,
        "cost_usd": prompt * 1e-6 + answer * 4e-6,
        "cost_source": "config",
    }


def measure(action: Callable[[], Any], times: int) -> dict[str, Any]:
    """Medians of process CPU and wall seconds."""
    cpu, wall = [], []
    for _ in range(times):
        began_cpu, began = time.process_time(), time.perf_counter()
        action()
        cpu.append(time.process_time() - began_cpu)
        wall.append(time.perf_counter() - began)
    return {
        "cpu_s": round(statistics.median(cpu), 3),
        "wall_s": round(statistics.median(wall), 3),
        "times": times,
    }


def batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Parts of a list."""
    return (items[at : at + size] for at in range(0, len(items), size))


@contextmanager
def store(postgres: bool) -> Iterator[str]:
    """URL of an empty database that is thrown away."""
    if postgres:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from postgres_at_hand import server

        with server() as running:
            yield running.url
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'store.db'}"


def measured(url: str, requests: int, times: int) -> dict[str, Any]:
    """Fills a store, rolls it up and compares."""
    with database.connect(url) as connection:
        filling = measure(lambda: fill(connection, requests), 1)
    with database.opened(url) as engine:
        with engine.begin() as connection:
            ids = sorted(connection.scalars(select(rollups.SESSIONS.c.id)))

        def roll_up() -> None:
            for some in batches(ids, 500):
                with engine.begin() as connection:
                    rollups.compute(connection, some)

        rolling = measure(roll_up, 1)
    made: list[dict[str, Any]] = []

    def compare() -> None:
        with database.connect(url) as connection:
            made.append(reports.of_variants(connection, "before", "after"))

    compare()
    compared = measure(compare, times)
    assert all(one == made[0] for one in made)
    return {
        "requests": sum(variant["requests"] for variant in made[0]["variants"]),
        "sessions": len(ids),
        "task_cards": made[0]["comparisons"][0]["task_cards"],
        "metrics": len(made[0]["comparisons"][0]["differences"]),
        "compare": compared,
        "fill_the_store": filling,
        "roll_up_all_sessions": rolling,
    }


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument(
        "--postgres", action="store_true", help="in a PostgreSQL of its own, whose CPU is not counted"
    )
    args = parser.parse_args()
    try:
        trace()
    except DatasetError as error:
        print(f"skipped: {error}")
        return
    kind = "postgresql" if args.postgres else "sqlite"
    with store(args.postgres) as url:
        figures = measured(url, args.requests, args.times)
    load = round(os.getloadavg()[0], 1)
    result = {"system": peer.system(), "database": kind, "load_1m": load, **figures, "goal_s": GOAL_S}
    peer.save_result("compare_million" + ("_postgresql" if args.postgres else ""), result)


if __name__ == "__main__":
    main()
