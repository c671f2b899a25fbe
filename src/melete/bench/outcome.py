"""How a session ended: solved or not, a score, who says so, and one short line why.

A note may come from a harness, so it is cut and stripped of control characters before it is kept or shown; it is data
and reaches no shell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from melete.errors import ConfigError

NOTE_LENGTH = 300


@dataclass(frozen=True)
class Outcome:
    """What came of a session.

    Attributes:
        source: manual (a person), checker (of the task card) or harness (it judges itself, as scenarios do).
        solved: whether the task was solved; None if nobody judged it.
        score: from 0 to 1, where there is one.
        note: one line.
        self_reported: figures of the harness's own, kept beside the measured ones and never mixed with them.
        seen: what was seen from outside, such as its exit code.
    """

    source: Literal["manual", "checker", "harness"]
    solved: bool | None = None
    score: float | None = None
    note: str = ""
    self_reported: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.score is not None and not (math.isfinite(self.score) and 0.0 <= self.score <= 1.0):
            raise ConfigError(f"A score of {self.score} is outside its range.", allowed="Allowed: 0 to 1.")

    def fields(self) -> dict[str, Any]:
        """The outcome as the session table keeps it."""
        kept: dict[str, Any] = {
            "solved": self.solved,
            "score": self.score,
            "outcome_source": self.source,
            "outcome_note": one_line(self.note) or None,
        }
        kept["metadata"] = dict(self.seen)
        if self.self_reported:
            kept["metadata"]["self_reported"] = figures(self.self_reported)
        return kept


def one_line(text: str) -> str:
    """Text as one line of printable characters, cut at `NOTE_LENGTH`."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:NOTE_LENGTH]


def figures(reported: dict[str, Any]) -> dict[str, Any]:
    """The numbers, flags and short words of what a harness reports of itself; everything else is left out."""
    kept: dict[str, Any] = {}
    for name, value in list(reported.items())[:64]:
        if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            kept[one_line(str(name))[:60]] = value
        elif isinstance(value, str):
            kept[one_line(str(name))[:60]] = one_line(value)[:80]
    return kept
