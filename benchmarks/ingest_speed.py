"""Events per second from a spool into the store, with every request's row computed: SQLite and PostgreSQL, one core.

    python benchmarks/ingest_speed.py [--events 30000] [--rounds 3] [--kept 120000] [--only sqlite]

A spool is written by the product's own writer as the hook writes it: for each request one begin, one attempt and one
end with every figure, 16 requests under way at a time, 200 sessions. It is then collected into a store that already
holds `--kept` events. CPU is that of the collector; for PostgreSQL the server's own is shown beside it (another
process, which in production has a core of its own). Goals: 5,000 events/s on SQLite and 3,000 on PostgreSQL, by CPU and
by wall time.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peer
from melete.gateway import sessions
from melete.gateway.collectors.spool import collect_into
from melete.gateway.events import Event, event_id, new_request
from melete.gateway.spool import SpoolWriter
from melete.store.database import opened

TESTS = Path(__file__).parent.parent / "tests"
SESSIONS = 200
UNDER_WAY = 16
GOALS = {"sqlite": 5000, "postgresql": 3000}


def three_events(request: str, session: str, at_s: float, writer: str) -> list[Event]:
    """What the hook says of one streamed request."""
    deployment = "openai-small"
    begin = {
        "endpoint": "chat",
        "stream": True,
        "model_asked": "small",
        "client": "OpenAI/Python",
        "changed": ["metadata"],
    }
    attempt = {
        "index": 0,
        "deployment": deployment,
        "started_s": at_s + 0.004,
        "ended_s": at_s + 1.2,
        "status": "ok",
        "http_status": 200,
        "upstream_request_id": "req_" + request[:12],
    }
    end = {
        **{name: value for name, value in begin.items() if name != "client"},
        "call_id": request,
        "model_answered": "small-2026",
        "deployment": deployment,
        "provider": "openai",
        "status": "ok",
        "http_status": 200,
        "attempts": 1,
        "started_s": at_s,
        "ended_s": at_s + 1.25,
        "latency_ms": 1250.5,
        "ttft_ms": 310.25,
        "first_chunk_ms": 60.5,
        "gap_p50_ms": 11.5,
        "gap_p95_ms": 24.25,
        "gap_max_ms": 80.0,
        "tokens_in": 1200,
        "tokens_cached": 640,
        "tokens_out": 75,
        "tokens_reasoning": 12,
        "tokens_estimated": False,
        "cost_usd": 0.000315,
        "cost_source": "config",
        "upstream_request_id": "req_" + request[:12],
        "overhead_ms": 4.5,
        "tool_calls": 1,
        "finish_reason": "tool_calls",
    }
    told = (("begin", begin, 0.0), ("attempt", attempt, 1.2), ("end", end, 1.25))
    return [
        Event(kind, event_id(request, kind), request, session, at_s + after_s, writer, fields)
        for kind, fields, after_s in told
    ]


def write_spool(folder: Path, count: int, ids: list[str]) -> int:
    """Writes `count` requests' events, some requests under way at a time; returns how many events."""
    writer = SpoolWriter(folder)
    waiting: list[list[Event]] = []
    written = 0
    for number in range(count):
        events = three_events(new_request(), ids[number % len(ids)], time.time(), writer.writer)
        writer.write(events[0])
        waiting.append(events[1:])
        due = waiting.pop(0) if len(waiting) > UNDER_WAY else []
        for event in due:
            writer.write(event)
        written += 1 + len(due)
    for events in waiting:
        for event in events:
            writer.write(event)
        written += len(events)
    writer.close()
    return written


def server_cpu_s(place: Path | None) -> float:
    """CPU seconds of a PostgreSQL server and its children, living and reaped."""
    if place is None:
        return 0.0
    postmaster = int((place / "data" / "postmaster.pid").read_text().split("\n")[0])
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) == postmaster:
            ticks += sum(int(field) for field in fields[11:15])
        elif int(fields[1]) == postmaster:
            ticks += sum(int(field) for field in fields[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(url: str, place: Path | None, events: int, rounds: int, kept: int) -> dict[str, float]:
    """Medians over rounds of the same size into one store that grows."""
    speeds = []
    with opened(url) as engine:
        with engine.begin() as connection:
            lived = sessions.open_many(connection, [{"state": "live"} for _ in range(SESSIONS)])
        ids = [session.id for session in lived]
        for number in range(rounds + 1):
            with tempfile.TemporaryDirectory() as folder:
                told = write_spool(Path(folder), (events if number else max(kept, 3)) // 3, ids)
                server_before, before = server_cpu_s(place), resource.getrusage(resource.RUSAGE_SELF)
                began_s = time.perf_counter()
                collected = collect_into(engine, Path(folder), alive=lambda writer: True)
                wall_s = time.perf_counter() - began_s
                after, server_after = resource.getrusage(resource.RUSAGE_SELF), server_cpu_s(place)
            assert (collected.ingested.events, collected.bad_lines) == (told, 0)
            cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            if number:  # the first round fills the store
                speeds.append((told / wall_s, told / cpu_s, (server_after - server_before) / told * 1e6))
    wall, cpu, server_us = (statistics.median(column) for column in zip(*speeds, strict=True))
    return {"events_per_s": wall, "events_per_cpu_s": cpu, "server_cpu_us_per_event": server_us}


@contextmanager
def stores(only: str | None) -> Iterator[list[tuple[str, str, Path | None]]]:
    """(kind, URL, the server's folder) of each store to measure."""
    sys.path.insert(0, str(TESTS))
    from postgres_at_hand import server

    with tempfile.TemporaryDirectory() as folder:
        sqlite = [("sqlite", f"sqlite:///{folder}/melete.db", None)]
        if only == "sqlite":
            yield sqlite
            return
        with server() as running:
            yield [*([] if only else sqlite), ("postgresql", running.url, running.place)]


def main() -> None:
    """Measures, prints a table and writes the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=30_000, help="events of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--kept", type=int, default=120_000, help="events in the store before the first round"
    )
    parser.add_argument("--only", choices=sorted(GOALS))
    asked = parser.parse_args()
    with stores(asked.only) as found:
        figures = {
            kind: measure(url, place, asked.events, asked.rounds, asked.kept) for kind, url, place in found
        }
    print(
        f"{asked.rounds} rounds of {asked.events} events after {asked.kept}, load {os.getloadavg()[0]:.1f}\n"
    )
    print(f"{'store':<12} {'events/s':>9} {'per CPU s':>10} {'goal':>6} {'server CPU µs/event':>20}")
    for kind, row in figures.items():
        print(
            f"{kind:<12} {row['events_per_s']:9.0f} {row['events_per_cpu_s']:10.0f} {GOALS[kind]:6} "
            f"{row['server_cpu_us_per_event']:20.0f}"
        )
    peer.save_result(
        "ingest_speed",
        {
            "system": peer.system(),
            "load": round(os.getloadavg()[0], 1),
            "rounds": asked.rounds,
            "events_per_round": asked.events,
            "events_kept_before": asked.kept,
            "goal_events_per_s": GOALS,
            "stores": {
                kind: {name: round(value, 1) for name, value in row.items()} for kind, row in figures.items()
            },
        },
    )


if __name__ == "__main__":
    main()
