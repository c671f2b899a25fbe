"""`melete bench run` with everything real: served models, the LiteLLM gateway, the agent as a harness, the report.

The models are the echo model of `melete serve`, which needs no weights and solves nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway_at_hand import need_litellm
from melete.gateway import entities, process, sessions
from melete.jobs.execute import Options, execute
from melete.records import RunState, SessionState
from melete.settings import Settings
from melete.store.database import connect
from melete.store.models import ArtifactRow, RequestRow

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]
FILES = {
    "providers/local.yaml": (
        "kind: melete\nmodels:\n"
        "  before: {serve: echo}\n"
        "  after: {serve: echo, input_cost_per_token: 1.0e-6, output_cost_per_token: 2.0e-6}\n"
    ),
    "task_cards/support.yaml": "scenario: {name: customer_support, split: held_out, count: 3}\n",
}


def test_bench_run_served_models_end_in_a_report_with_costs_and_times(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_litellm(home)
    for name, text in FILES.items():
        path = tmp_path / "bench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("MELETE_BENCH", str(tmp_path / "bench"))
    settings = dataclasses.replace(home, bench_folder=tmp_path / "bench")
    record = execute("bench.run", {"experiment": "support", "concurrency": 4}, Options(settings))
    assert record.state is RunState.SUCCEEDED
    assert record.result["sessions"] == {"before": 3, "after": 3}
    assert process.running(settings) is None

    with connect(settings.database) as connection:
        played = sessions.list_sessions(connection, limit=100)
        rows = [dict(row) for row in connection.execute(select(RequestRow.__table__)).mappings()]
    assert {one.state for one in played} == {SessionState.FINALISED}
    by_session = defaultdict(list)
    for row in rows:
        by_session[row["session_id"]].append(row)
    assert set(by_session) == {one.id for one in played}, (
        "a session without requests, or a request without session"
    )
    for session in played:
        requests = by_session[session.id]
        # The echo model never calls a tool: each step of an episode is one message, and so one request.
        assert len(requests) == session.metadata["self_reported"]["steps"]
        assert all(row["status"] == "ok" and row["stream"] for row in requests)
        assert all(0 < row["ttft_ms"] <= row["latency_ms"] for row in requests)
        assert all(row["tokens_in"] > 0 and row["tokens_out"] > 0 for row in requests)
        priced = entities.name_of(str(session.variant)) == "after"
        assert all((row["cost_usd"] is not None) == priced for row in requests)

    folder = settings.runs / record.id
    report = json.loads((folder / "experiment.json").read_text())
    assert [variant["name"] for variant in report["variants"]] == ["before", "after"]
    assert {row["metric"] for row in report["comparisons"][0]["differences"]} >= {
        "success",
        "latency",
        "ttft",
    }
    assert (folder / "experiment.html").stat().st_size > 1000
    with connect(settings.database) as connection:
        kept = connection.execute(select(ArtifactRow.kind, ArtifactRow.sha256)).all()
    digest = hashlib.sha256((folder / "experiment.json").read_bytes()).hexdigest()
    assert ("report.json", digest) in {tuple(row) for row in kept}
