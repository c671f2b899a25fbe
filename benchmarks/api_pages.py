"""How long a page of the API takes over a million stored requests: any page, any filter, on SQLite and PostgreSQL.

A lab is made once per database: 1,000,000 requests of 4 variants in 20,000 sessions over 30 days, with statuses, models
and errors as uneven as in life, one variant that is rare and old, and one that nobody played. Each kind of page is
asked through the whole application (routing, validation, query, JSON, ETag) without a socket. The goal is a 95th
percentile under 200 ms, in wall time of one client, for the slowest kind; CPU time stands beside it, which a busy
machine does not stretch. On PostgreSQL that is our process alone, without the server's. Our page of metrics is measured
beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert

import peer
from melete.api.app import create_app
from melete.gateway import entities
from melete.gateway.exporter import Figures
from melete.settings import Settings
from melete.store import database
from melete.store.models import RequestRow, SessionRow

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

GOAL_MS = 200.0
BEGUN_S = 1_793_000_000.0
SPAN_S = 30 * 86_400.0
VARIANTS = ("plain", "careful", "large", "rare")
MODELS = ("small", "medium", "large-1")
BATCH = 20_000


def fill(settings: Settings, count: int, per_session: int = 50) -> None:
    """Writes the lab."""
    chance = random.Random(1)
    number = max(1, count // per_session)
    columns = dict.fromkeys(RequestRow.__table__.columns.keys())
    with database.connect(settings.database) as connection:
        variants = [
            entities.record(connection, "variant", name, {"name": name}) for name in (*VARIANTS, "unplayed")
        ]
        experiments = [
            entities.record(connection, "experiment", name, {"name": name}) for name in ("first", "second")
        ]
        cards = [entities.record(connection, "task_card", f"card{n}", {"prompt": str(n)}) for n in range(50)]
        sessions, requests = [], []
        for at in range(number):
            begun_s = BEGUN_S + SPAN_S * at / number
            variant = variants[3] if at % 997 == 0 and at < number // 3 else variants[at % 3]
            session = f"s-{at:08d}"
            sessions.append(
                {
                    "id": session, "kind": "gateway", "state": "finalised", "experiment": experiments[at * 2 // number],
                    "variant": variant, "task_card": cards[at % 50], "attempt": at // 50, "harness_profile": "sdk@0",
                    "provider": "p@0", "model": MODELS[at % 3], "created_s": begun_s, "started_s": begun_s,
                    "ended_s": begun_s + 60, "expires_s": begun_s + 3_600, "first_request_s": begun_s + 1,
                    "last_request_s": begun_s + 1 + per_session, "solved": at % 2 == 0, "score": None,
                    "outcome_source": "checker", "outcome_note": None, "facts": {"host": "here"}, "content": False,
                }
            )  # fmt: skip
            for call in range(per_session):
                wrong = chance.random() < 0.02
                requests.append(
                    {
                        **columns, "id": str(uuid.UUID(int=chance.getrandbits(128))), "session_id": session,
                        "source": "hook", "endpoint": "chat", "stream": call % 2 == 0, "model_asked": MODELS[at % 3],
                        "provider": "openai", "status": "error" if wrong else "ok",
                        "error_class": chance.choice(("rate_limit", "timeout")) if wrong else None,
                        "http_status": 429 if wrong else 200, "attempts": 1, "started_s": begun_s + 1 + call,
                        "ended_s": begun_s + 2 + call, "latency_ms": chance.uniform(100, 2_000), "ttft_ms": 100.0,
                        "tokens_in": 500, "tokens_out": 50, "cost_usd": 0.001, "cost_source": "config",
                    }
                )  # fmt: skip
            if len(requests) >= BATCH or at == number - 1:
                connection.execute(insert(SessionRow.__table__), [_row(row) for row in sessions])
                connection.execute(insert(RequestRow.__table__), requests)
                sessions, requests = [], []


def _row(session: dict[str, Any]) -> dict[str, Any]:
    return {("metadata" if key == "facts" else key): value for key, value in session.items()}


def pages(chance: random.Random) -> dict[str, tuple[str, dict[str, Any]]]:
    """Kind of page to a path and its parameters, at random places."""
    at_s = BEGUN_S + chance.random() * SPAN_S
    session = f"s-{chance.randrange(10_000):08d}"
    variant, model = chance.choice(VARIANTS[:3]), chance.choice(MODELS)
    return {
        "newest": ("/requests", {}),
        "200 items": ("/requests", {"limit": 200, "until_s": at_s}),
        "deep": ("/requests", {"until_s": at_s}),
        "window": ("/requests", {"since_s": at_s - 600, "until_s": at_s}),
        "session": ("/requests", {"session": session}),
        "variant": ("/requests", {"variant": variant, "until_s": at_s}),
        "rare variant": ("/requests", {"variant": "rare"}),
        "unplayed variant": ("/requests", {"variant": "unplayed"}),
        "experiment": ("/requests", {"experiment": "first"}),
        "errors": ("/requests", {"status": "error", "until_s": at_s}),
        "errors of a class and variant": (
            "/requests", {"status": "error", "error_class": "timeout", "variant": variant, "until_s": at_s},
        ),
        "status that none has": ("/requests", {"status": "client_abort", "until_s": at_s}),
        "model": ("/requests", {"model": model, "until_s": at_s}),
        "model that none asked for": ("/requests", {"model": "none", "until_s": at_s}),
        "everything at once": (
            "/requests", {"variant": variant, "experiment": "first", "model": model, "provider": "openai",
                          "endpoint": "chat", "status": "ok", "stream": True, "until_s": at_s},
        ),
        "sessions": ("/sessions", {"until_s": at_s}),
        "sessions of a variant": ("/sessions", {"variant": variant, "solved": True, "until_s": at_s}),
        "sessions in a state that none has": ("/sessions", {"state": "aborted"}),
        "one session": (f"/sessions/{session}", {}),
    }  # fmt: skip


async def measure(settings: Settings, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each kind of page: median and 95th percentile of wall time, median of CPU time."""
    app = create_app(settings)
    chance = random.Random(2)
    wall: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        await client.get("/requests")
        for _ in range(rounds):
            for kind, (path, parameters) in pages(chance).items():
                followed = 0
                while followed < 3:  # the page, and where there is one, the two after it
                    started_s, used_s = time.perf_counter(), time.process_time()
                    answer = await client.get(path, params=parameters)
                    wall.setdefault(kind, []).append((time.perf_counter() - started_s) * 1e3)
                    cpu.setdefault(kind, []).append((time.process_time() - used_s) * 1e3)
                    assert answer.status_code == 200, answer.text
                    cursor = answer.json().get("next_cursor")
                    if cursor is None:
                        break
                    parameters, followed = {**parameters, "cursor": cursor}, followed + 1
    app.state.store.close()
    return {
        kind: {
            "pages": len(times),
            "p50_ms": round(statistics.median(times), 1),
            "p95_ms": round(sorted(times)[max(0, -(-len(times) * 95 // 100) - 1)], 1),
            "cpu_p50_ms": round(statistics.median(cpu[kind]), 1),
        }
        for kind, times in wall.items()
    }


def exporter_pages(settings: Settings) -> dict[str, float]:
    """CPU milliseconds of our page of metrics: the first one, which sums up everything, and later ones."""
    engine = database.open_engine(settings.database)
    clock = [BEGUN_S + SPAN_S]
    figures, times = Figures(engine, now=lambda: clock[0]), []
    for _ in range(6):
        used_s = time.process_time()
        samples = sum(len(family.samples) for family in figures.collect())
        times.append((time.process_time() - used_s) * 1e3)
        clock[0] += 15
    engine.dispose()
    return {
        "samples": samples,
        "first_cpu_ms": round(times[0]),
        "next_cpu_ms": round(statistics.median(times[1:]), 1),
    }


@contextmanager
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL of our own."""
    from postgres_at_hand import server

    with server() as running:
        yield running.url


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    parser.add_argument("--keep", type=Path, help="folder for the SQLite file, to use it again")
    args = parser.parse_args()
    result: dict[str, Any] = {"system": peer.system(), "requests": args.requests, "goal_p95_ms": GOAL_MS}
    with tempfile.TemporaryDirectory() as scratch:
        home = args.keep or Path(scratch)
        kinds = {"sqlite": nullcontext(f"sqlite:///{home / 'pages.db'}"), "postgresql": postgres()}
        for kind, opened in kinds.items():
            if args.only and kind != args.only:
                continue
            with opened as url:
                settings = Settings(home=home, data=None, database=url)
                if not (kind == "sqlite" and (home / "pages.db").exists()):
                    fill(settings, args.requests)
                if kind == "postgresql":
                    analyse(url)
                found = asyncio.run(measure(settings, args.rounds))
                exporter = exporter_pages(settings)
            worst = max(found, key=lambda name: found[name]["p95_ms"])
            result[kind] = {
                "exporter": exporter,
                "worst": worst,
                "worst_p95_ms": found[worst]["p95_ms"],
                "by_page": found,
            }
    result["load_after"] = round(os.getloadavg()[0], 1)
    peer.save_result("api_pages", json.loads(json.dumps(result)))


def analyse(url: str) -> None:
    """What autovacuum does a minute later by itself."""
    engine = database.open_engine(url).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()


if __name__ == "__main__":
    main()
