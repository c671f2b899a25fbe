"""What a run proved: tool reliability and success before and after practice, with intervals, per split and tool."""

from __future__ import annotations

import sqlite3
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from melete.api import here, proof, traces
from melete.api.clean import text
from melete.api.episode_records import Proof, ToolProof
from melete.api.here import RunId
from melete.api.store import Store

MOST_TOOLS = 200
EXAMS = "('before', 'after', 'now')"


class ProofAsked(BaseModel):
    """Nothing can be asked of it."""

    model_config = ConfigDict(extra="forbid")


def routes(store: Store) -> APIRouter:
    """One answer."""
    router = APIRouter()

    @router.get("")
    def get_run_proof(run_id: RunId, asked: Annotated[ProofAsked, Query()]) -> Proof:
        """What practice changed, or an evaluation found; empty for runs of other kinds."""
        path, record = here.opened(store, run_id)
        result = record.result
        config = here.yaml_of(path / "config.yaml")
        scenario = config.get("scenario") if isinstance(config, dict) else None
        practised_s = result.get("practised_s")
        with traces.opened(path / "traces") as (index, complete):
            tools = _tools(index)
        return Proof(
            run=run_id,
            scenario=text(scenario, 200) if isinstance(scenario, str) else None,
            prompt=text(str(result["prompt"]), 200) if result.get("prompt") else None,
            practised_s=practised_s if isinstance(practised_s, int | float) else None,
            rows=proof.rows(result),
            differences=proof.differences(result),
            tools=tools,
            complete=complete,
        )

    return router


def _tools(index: sqlite3.Connection) -> list[ToolProof]:
    """Calls of each tool in the exams; the calls of one episode are alike, and the interval knows it."""
    from melete import metrics

    found: dict[tuple[str, str, str, str], tuple[list[int], list[int]]] = {}
    query = (
        "SELECT phase, decoding, split, tool, call.calls, call.calls_ok FROM episode JOIN call ON episode = n "
        f"WHERE phase IN {EXAMS} ORDER BY tool, split, decoding, phase DESC"
    )
    for row in index.execute(query):
        key = (row["tool"], row["phase"], row["split"] or "", row["decoding"])
        if key not in found and len(found) == MOST_TOOLS:
            continue
        good, tried = found.setdefault(key, ([], []))
        good.append(row["calls_ok"])
        tried.append(row["calls"])
    proven = []
    for (tool, phase, split, decoding), (good, tried) in found.items():
        share = metrics.cluster_rate(good, tried)
        proven.append(
            ToolProof(
                tool=tool,
                phase=phase,
                split=split,
                decoding=decoding,
                calls=sum(tried),
                calls_ok=sum(good),
                reliability=proof.rate(share.value, share.low, share.high, share.count),
            )
        )
    return proven
