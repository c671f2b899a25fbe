"""Finished sessions with requests straight in the store, for tests of what is computed from them."""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import Connection

from melete.bench.rollups import REQUESTS
from melete.gateway import entities, sessions
from melete.records import SessionState

START_S = 1_790_000_000.0


def request(session_id: str, number: int, **fields: Any) -> dict[str, Any]:
    """One request's row; fields replace those of an answered, streamed chat request."""
    row = {column.name: None for column in REQUESTS.columns}
    row |= {
        "id": f"{session_id}-{number:04d}",
        "session_id": session_id,
        "source": "hook",
        "endpoint": "chat",
        "stream": True,
        "model_asked": "small",
        "model_answered": "small",
        "provider": "openai",
        "status": "ok",
        "attempts": 1,
        "started_s": START_S + number,
        "latency_ms": 400.0,
        "ttft_ms": 100.0,
        "tokens_in": 100,
        "tokens_cached": 20,
        "tokens_out": 31,
        "tokens_estimated": False,
        "cost_usd": 0.001,
        "cost_source": "config",
        "client": "SECRET-client",
        "upstream_request_id": "req-1",
        **fields,
    }
    return row


def variant(connection: Connection, name: str, **document: Any) -> str:
    """Records a variant; returns its id."""
    written = {
        "name": name,
        "harness_profile": "openai_sdk",
        "provider": "echo",
        "model": "small",
        **document,
    }
    return entities.record(connection, "variant", name, written)


def play(
    connection: Connection,
    variant_id: str,
    task_card: str,
    *,
    attempt: int = 0,
    experiment: str | None = None,
    solved: bool | None = True,
    requests: list[dict[str, Any]] | None = None,
    state: SessionState = SessionState.FINALISED,
    created_s: float = START_S,
    **fields: Any,
) -> str:
    """One session with its requests; `requests` holds the fields of each."""
    card = entities.record(
        connection, "task_card", task_card, {"name": task_card, "prompt": f"Do {task_card}."}
    )
    metadata = {
        "host": "bench-host",
        "repository": "/home/somebody/SECRET-folder",
        "load_1m": 0.5,
        "versions": {"melete": "0.3", "litellm": "1.2"},
        **fields.pop("metadata", {}),
    }
    record = sessions.open_session(
        connection,
        state=state,
        variant=variant_id,
        task_card=card,
        experiment=experiment,
        attempt=attempt,
        harness_profile="openai_sdk@0",
        provider="echo@0",
        model="small",
        created_s=created_s,
        started_s=created_s,
        ended_s=created_s + 60,
        solved=solved,
        outcome_note="SECRET-note",
        metadata=metadata,
        **fields,
    )
    rows = [
        request(record.id, number, **one) for number, one in enumerate([{}] if requests is None else requests)
    ]
    if rows:
        connection.execute(REQUESTS.insert(), rows)
    return record.id


def experiment(
    connection: Connection, cards: int = 12, attempts: int = 1, seed: int = 0
) -> tuple[str, str, str]:
    """An experiment `support` in which `after` is quicker, cheaper and solves more than `before`; returns all ids."""
    draw = random.Random(seed)
    document = {
        "variants": ["before", "after"],
        "baseline": "before",
        "task_cards": ["support"],
        "attempts": attempts,
    }
    id = entities.record(connection, "experiment", "support", document)
    before, after = variant(connection, "before"), variant(connection, "after", model="large")
    for card in range(cards):
        for attempt in range(attempts):
            for own, chance, speed in ((before, 0.3, 1.0), (after, 0.9, 0.5)):
                solved = draw.random() < chance
                play(
                    connection,
                    own,
                    f"support/{card}",
                    attempt=attempt,
                    experiment=id,
                    solved=solved,
                    created_s=START_S + card,
                    requests=[
                        {
                            "latency_ms": speed * draw.uniform(300, 500),
                            "ttft_ms": speed * draw.uniform(50, 150),
                            "cost_usd": speed * 0.002,
                        }
                        for _ in range(draw.randint(1, 6))
                    ],
                    metadata={"self_reported": {"tool_calls": 5, "tool_calls_ok": 4 + int(solved)}},
                )
    return id, before, after
