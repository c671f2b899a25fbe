"""Metrics: what can be measured of sessions and requests, in which unit, and which way is better."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from melete.api.store import PLAIN, Listed, Store

MetricName = Annotated[
    str, Path(max_length=60, pattern=PLAIN, description="A metric's name.", examples=["cost_per_solved"])
]


class Metric(BaseModel):
    """One metric."""

    name: str = Field(examples=["cost_per_solved"])
    title: str
    unit: str = Field(examples=["USD"])
    better: Literal["lower", "higher", "neither"]
    note: str = Field(description="What exactly is counted.")


def routes(store: Store) -> APIRouter:
    """All of them, and one by its name."""
    router = APIRouter()

    @router.get("")
    def list_metrics() -> Listed[Metric]:
        """List metrics in the order of a report."""
        from melete.bench import metric

        return Listed[Metric](
            object="list", data=[_described(name) for name in metric.names()], next_cursor=None
        )

    @router.get("/{name}")
    def get_metric(name: MetricName) -> Metric:
        """One metric."""
        return _described(name)

    return router


def _described(name: str) -> Metric:
    """What the file of a metric says of it."""
    from melete.bench import metric

    found = metric.load(name)
    return Metric(name=name, title=found.title, unit=found.unit, better=found.better, note=found.note)
