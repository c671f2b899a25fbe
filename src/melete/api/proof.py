"""What practice proved, from a run's result: rows with intervals before and after, and the paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from melete.api.clean import text
from melete.api.episode_records import ProofDifference, ProofRow, Rate

PHASES = (("before", "before"), ("after", "after"), ("measured", "now"))
"""Keys of a result, and what they are called."""
MOST_ROWS = 60


def rows(result: Mapping[str, Any]) -> list[ProofRow]:
    """The rows of all exams of a result; what cannot be read is left out."""
    found = []
    for key, phase in PHASES:
        told = result.get(key)
        for row in told[:MOST_ROWS] if isinstance(told, list) else ():
            if isinstance(row, dict) and (one := _row(row, phase)) is not None:
                found.append(one)
    return found


def differences(result: Mapping[str, Any]) -> list[ProofDifference]:
    """The paired differences of a result, by split."""
    found = []
    for key, told in list(result.items())[:500]:
        if key.startswith("difference_") and isinstance(told, dict):
            try:
                values: dict[str, Any] = {
                    name: told.get(name) for name in ProofDifference.model_fields if name != "split"
                }
                values["sentence"] = text(str(values["sentence"]), 1_000)
                found.append(ProofDifference(split=text(key.removeprefix("difference_"), 200), **values))
            except ValidationError:
                continue
    return found


def rate(value: float, low: float, high: float, count: int) -> Rate:
    """A share with its interval."""
    return Rate(value=value, low=low, high=high, count=count)


def _row(row: dict[str, Any], phase: str) -> ProofRow | None:
    try:
        return ProofRow(
            phase=phase,
            split=text(str(row["split"]), 200),
            decoding=text(str(row["decoding"]), 40),
            tasks=row["tasks"],
            success=_rate(row["success"], row["tasks"]),
            calls=row["tool_calls"],
            calls_ok=row["tool_calls_ok"],
            reliability=_rate(row["reliability"], row["tool_calls"]),
            policies_broken=row.get("policies_broken"),
            failed=row.get("failed"),
            tokens_per_solved=row.get("tokens_per_solved"),
            calls_per_task=row.get("calls_per_task"),
        )
    except (KeyError, TypeError, ValueError):  # a pydantic error is a ValueError
        return None


def _rate(values: Any, count: Any) -> Rate:
    value, low, high = (float(one) for one in values)
    if not all(math.isfinite(one) for one in (value, low, high)):
        raise ValueError("a rate is finite")
    return rate(value, low, high, count)
