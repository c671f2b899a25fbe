"""How far a run is, and whether it was asked to end.

The loop that it walks is written down once when it begins; its steps are read off the figures. So a reader in another
process knows progress and time left without the run writing more with each step.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "progress.json"
ENDING = "ending"


@dataclass(frozen=True)
class Headway:
    """How far the outer loop of a run is.

    Attributes:
        what: word for its steps.
        done: steps that are done.
        total: steps that it will take, unless it is ended before.
        left_s: estimate of the time left; None before the first step.
    """

    what: str
    done: int
    total: int
    left_s: float | None


def begin(folder: Path, what: str, start: int, total: int) -> None:
    """Writes down that a loop begins; a folder that cannot be written is reported by whoever writes figures."""
    with suppress(OSError):
        told = {"what": what, "start": start, "total": total, "began_s": time.time()}
        (folder / FILE).write_text(json.dumps(told), encoding="utf-8")


def ending(folder: Path, asked: bool) -> None:
    """Writes down whether a run was asked to save and to end; a folder that cannot be written does not hinder it."""
    with suppress(OSError):
        if asked:
            (folder / ENDING).touch()
        else:
            (folder / ENDING).unlink(missing_ok=True)


def is_ending(folder: Path) -> bool:
    """Whether a run that is on was asked to save and to end."""
    return (folder / ENDING).exists()


def read(folder: Path, last: dict[str, Any]) -> Headway | None:
    """How far a run is; None where its folder does not tell.

    Args:
        folder: of the run.
        last: its newest figures with their `step` and `time_s`, as they stand in `metrics.jsonl`.
    """
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        start, total, began_s = int(told["start"]), int(told["total"]), float(told["began_s"])
        logged_s, step = float(last.get("time_s", 0)), int(last.get("step", start))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    # Older figures are of a loop before this one; `time_s` has three digits.
    done = min(max(step, start), total) if logged_s >= began_s - 0.001 else start
    walked_s = max(0.0, logged_s - began_s)
    left_s = walked_s / (done - start) * (total - done) if done > start else None
    limit_s = last.get("left_s")
    if left_s is not None and isinstance(limit_s, int | float):
        left_s = min(left_s, limit_s)
    return Headway(str(told["what"]), done, total, left_s)
