"""Figures of a run over its steps, thinned here, so that a chart of ten million points is a small answer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from melete.api import columns, here
from melete.api.here import RunId
from melete.api.records import Curve, Curves
from melete.api.store import PLAIN, Store
from melete.errors import UnknownNameError

MOST_CURVES = 20
Step = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]


class CurvesAsked(BaseModel):
    """Which figures, and how many points of each."""

    model_config = ConfigDict(extra="forbid")

    keys: str | None = Field(
        None,
        max_length=4_000,
        pattern=PLAIN,
        description=f"Names joined by commas, {MOST_CURVES} at most; without any, all figures without their points.",
        examples=["loss,val_loss"],
    )
    first: Step | None = Field(None, alias="from", description="First step.", examples=[100])
    last: Step | None = Field(None, alias="to", description="Last step.", examples=[500])
    most: int = Field(
        2_000,
        alias="max",
        ge=10,
        le=5_000,
        description="Points of each at most; the lowest and highest of each stretch stay.",
    )


def routes(store: Store) -> APIRouter:
    """One answer."""
    router = APIRouter()

    @router.get("", response_model=Curves)
    def get_run_metrics(run_id: RunId, asked: Annotated[CurvesAsked, Query()]) -> Response:
        """Figures of a run; ask again while `complete` is false."""
        path, _ = here.opened(store, run_id)
        read = columns.read(path)
        known = read.head.figures
        keys = list(dict.fromkeys(key for key in (asked.keys or "").split(",") if key))[:MOST_CURVES]
        for key in keys:
            if key not in known and read.complete:
                raise UnknownNameError("figure of this run", key, known)
        figures = []
        for key in keys or known:
            if key in known:
                points = read.series(key, asked.most, asked.first, asked.last) if keys else None
                figures.append(curve(key, known[key], points, read.gaps(key) if keys else ()))
        answer = Curves.model_construct(
            run=run_id,
            complete=read.complete,
            read_bytes=read.head.offset,
            total_bytes=read.size,
            figures=figures,
        )
        return Response(answer.model_dump_json(), media_type="application/json")

    return router


def curve(
    key: str,
    figure: columns.Figure,
    points: tuple[Iterable[float], Iterable[float], Iterable[float]] | None,
    gaps: Iterable[float] = (),
) -> Curve:
    """What is said of a figure; its numbers were checked when they were read."""
    steps, times_s, values = points if points is not None else ((), (), ())
    return Curve.model_construct(
        key=key,
        count=figure.count,
        not_finite=figure.not_finite,
        minimum=_finite(figure.minimum),
        maximum=_finite(figure.maximum),
        last=_finite(figure.last),
        last_step=_finite(figure.last_step),
        steps=[float(step) for step in steps],
        times_s=[_finite(float(time_s)) for time_s in times_s],
        values=[float(value) for value in values],
        gaps=list(gaps),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
