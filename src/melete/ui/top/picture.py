"""What the screen shows, as plain data: rows of tables from the API's answers, a curve, the end of a log.

Knows nothing of a terminal but the widths it is asked for. All text may be hostile: what is not printable is replaced.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from melete.api.columns import thinned
from melete.runs.progress import duration

LOG_LINES = 1_000
MOST_POINTS = 20_000
POINTS_A_CELL = 2
FIRST_FIGURES = ("loss", "train_loss", "reward", "success_rate", "val_loss")
"""Shown first, where a run has them."""


@dataclass(frozen=True)
class Column:
    """A column of a table; those with the smallest `rank` stay longest when there is little room.

    Attributes:
        name: its heading.
        rank: how much it is needed.
        width: characters.
    """

    name: str
    rank: int
    width: int


RUN_COLUMNS = (
    Column("state", 1, 9), Column("run", 0, 18), Column("process", 3, 16), Column("step", 1, 8),
    Column("figures", 2, 26), Column("age", 2, 8), Column("id", 4, 32),
)  # fmt: skip
JOB_COLUMNS = (
    Column("state", 0, 10), Column("job", 0, 16), Column("done", 1, 5), Column("age", 3, 8), Column("waits", 2, 26),
)  # fmt: skip
JOB_ORDER = ("running", "queued", "paused")
GAP = 2


def fitting(columns: tuple[Column, ...], width: int) -> tuple[Column, ...]:
    """The columns that fit into a width, in their order."""
    kept: set[str] = set()
    for column in sorted(columns, key=lambda one: one.rank):
        if column.width + GAP <= width or not kept:
            width -= column.width + GAP
            kept.add(column.name)
    return tuple(column for column in columns if column.name in kept)


def shown(text: object, longest: int = 400) -> str:
    """Text for a terminal: one line in which every character is printable."""
    clean = "".join(
        c if c.isprintable() else " " if c in "\t\r\n" else "\ufffd" for c in str(text)[: longest + 1]
    )
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def run_rows(runs: Iterable[Mapping[str, Any]], needle: str = "") -> dict[str, dict[str, str]]:
    """Cells by run, those that run first, then the newest."""
    ordered = sorted(runs, key=lambda run: (run["state"] != "running", -run["created_s"]))
    rows = {
        str(run["id"]): {
            "state": shown(run["state"]),
            "run": shown(run["name"] or run["id"]),
            "process": shown(run["process"]),
            "step": "–" if run["step"] is None else f"{run['step']:,}",
            "figures": figures(run["last"]),
            "age": duration(max(0.0, (run["ended_s"] or time.time()) - run["created_s"])),
            "id": shown(run["id"]),
        }
        for run in ordered
    }
    return {key: cells for key, cells in rows.items() if _holds(cells, needle)}


def job_rows(jobs: Iterable[Mapping[str, Any]], needle: str = "") -> dict[str, dict[str, str]]:
    """Cells by job, those that run first, then those that wait, then the newest."""

    def order(job: Mapping[str, Any]) -> tuple[int, float, float]:
        place = JOB_ORDER.index(job["state"]) if job["state"] in JOB_ORDER else len(JOB_ORDER)
        return place, -job["priority"], -job["created_s"]

    rows = {
        str(job["id"]): {
            "state": shown(job["shown_state"]),
            "job": shown(job["name"]),
            "done": f"{job['done']}/{len(job['steps'])}",
            "age": duration(max(0.0, (job["ended_s"] or time.time()) - job["created_s"])),
            "waits": shown(job["waits"] or job["error"] or ""),
        }
        for job in sorted(jobs, key=order)
    }
    return {key: cells for key, cells in rows.items() if _holds(cells, needle)}


def figures(last: Mapping[str, Any]) -> str:
    """The last figures of a run, the best known first."""
    numbers = {key: value for key, value in last.items() if isinstance(value, int | float)}
    keys = sorted(numbers, key=lambda key: (key not in FIRST_FIGURES, key))
    return "  ".join(f"{shown(key)} {numbers[key]:.4g}" for key in keys[:3])


def machine(status: Mapping[str, Any]) -> str:
    """Processors, memory, disk and GPUs in a line."""
    parts = [f"CPU {bar(status['cpu_percent'] / 100)} {status['cpu_percent']:.0f} % of {status['cpu_count']}"]
    for name in ("memory", "disk"):
        total, free = status[name]["total_bytes"], status[name]["free_bytes"]
        parts.append(
            f"{name} {bar(1 - free / total if total else 0)} {_size(total - free)} of {_size(total)}"
        )
    for gpu in status["gpus"] or ():
        used = gpu["memory_used_bytes"] / max(1, gpu["memory_bytes"])
        busy = "" if gpu["busy_percent"] is None else f", {gpu['busy_percent']:.0f} % busy"
        parts.append(f"GPU {gpu['index']} {bar(used)} {_size(gpu['memory_used_bytes'])}{busy}")
    return "   ".join(parts)


def bar(share: float, width: int = 8) -> str:
    """A share as a bar."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "░" * (width - full)


@dataclass
class Curve:
    """One figure of a run as it grows."""

    key: str = ""
    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def take(self, payload: Mapping[str, Any]) -> None:
        """Adds a message of the topic `…/metrics?keys=…`."""
        if "whole" in payload:
            self.steps, self.values = [], []
        for figure in next(iter(payload.values()))["figures"]:
            if figure["key"] == self.key:
                self.steps += figure["steps"]
                self.values += figure["values"]
        if len(self.values) > MOST_POINTS:
            kept = thinned(np.array(self.values), MOST_POINTS // 2)
            self.steps = [self.steps[at] for at in kept]
            self.values = [self.values[at] for at in kept]

    def points(self, width: int) -> tuple[list[float], list[float]]:
        """Steps and values for so many cells: the lowest and highest of each stretch stay, so that no spike is lost."""
        kept = thinned(np.array(self.values, dtype=float), max(8, POINTS_A_CELL * width))
        return [self.steps[at] for at in kept], [self.values[at] for at in kept]


def choose(known: Iterable[str], wanted: str) -> str:
    """The figure to show: the one that was chosen if the run has it, else the best known one."""
    keys = list(known)
    if wanted in keys:
        return wanted
    return next((key for key in FIRST_FIGURES if key in keys), keys[0] if keys else "")


def problem(payload: Any) -> str | None:
    """What the server says is wrong with a topic; None if nothing is."""
    if isinstance(payload, dict) and isinstance(payload.get("error"), dict):
        return shown(payload["error"].get("message", "It cannot be shown."))
    return None


def _holds(cells: Mapping[str, str], needle: str) -> bool:
    return not needle or any(needle.lower() in cell.lower() for cell in cells.values())


def _size(count: float) -> str:
    """Bytes in units of powers of ten, as the pages tell them."""
    power = min(4, int(math.log10(count) / 3)) if count >= 1 else 0
    return f"{count / 1_000**power:.{1 if power > 2 else 0}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
