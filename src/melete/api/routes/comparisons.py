"""Comparisons: two variants, or all of an experiment, paired by task card and attempt, with intervals and sentences."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from melete.api.store import Store, Text
from melete.errors import ConfigError


class Difference(BaseModel):
    """One metric, `after - before`."""

    model_config = ConfigDict(extra="allow")

    metric: str = Field(description="Name of a metric, see /metrics.", examples=["success"])
    difference: float | None
    low: float | None = Field(
        description="Lower end of the 95 % interval; null where nothing is known of it."
    )
    high: float | None
    count: int = Field(description="Task cards.")
    verdict: str = Field(description="better, worse, different or none shown.")
    sentence: str


class Comparison(BaseModel):
    """Two variants on the task cards that both played."""

    model_config = ConfigDict(extra="allow")

    before: str
    after: str
    task_cards: int
    pairs: int = Field(description="Sessions on each side.")
    left_out: list[str] = Field(description="What has no partner.")
    differences: list[Difference]


class Report(BaseModel):
    """What `melete bench compare --json` prints, computed anew from the store."""

    model_config = ConfigDict(extra="allow")

    experiment: dict[str, Any] | None
    variants: list[dict[str, Any]] = Field(description="Counts, outcomes, errors and figures with intervals.")
    comparisons: list[Comparison]
    notes: list[str]


class ComparisonAsked(BaseModel):
    """Which: two variants, or an experiment whose variants are all compared with its baseline."""

    model_config = ConfigDict(extra="forbid")

    before: Text | None = Field(
        None, description="Name (its newest text) or id of a variant.", examples=["plain"]
    )
    after: Text | None = Field(
        None, description="Name (its newest text) or id of another one.", examples=["careful"]
    )
    experiment: Text | None = Field(None, description="Name or id.", examples=["trial"])


def routes(store: Store) -> APIRouter:
    """One report, computed when it is asked for."""
    router = APIRouter()

    @router.get("")
    def compare_variants(asked: Annotated[ComparisonAsked, Query()]) -> Report:
        """Compare two variants (before, after), or the variants of an experiment with its baseline."""
        from melete.bench import report

        with store.keep() as connection:
            if asked.before and asked.after:
                return Report.model_validate(
                    report.of_variants(connection, asked.before, asked.after, asked.experiment)
                )
            if asked.experiment and not (asked.before or asked.after):
                return Report.model_validate(report.of_experiment(connection, asked.experiment))
        raise ConfigError(
            "A comparison needs two variants or an experiment.",
            allowed="Allowed: before and after, with or without experiment; or experiment alone.",
        )

    return router
