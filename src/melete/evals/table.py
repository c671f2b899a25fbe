"""The table of an evaluation: one line per score with its interval and count, skipped tasks with their reason."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from melete.evals.run import TaskResult

WIDTH = 110


def show(model: str, suite: str, results: Sequence[TaskResult]) -> str:
    """The table as plain text."""
    table = Table(title=f"{model} on {suite}", box=SIMPLE_HEAD, title_justify="left")
    for name, justify in (
        ("score", "left"),
        ("value", "right"),
        ("95 % interval", "left"),
        ("items", "right"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("note", overflow="fold")
    for result in results:
        for score in result.scores:
            interval = f"[{score.low:.3f}, {score.high:.3f}]" if score.low is not None else ""
            value = f"{score.value:.4f}" if score.count else "-"
            table.add_row(score.name, value, interval, f"{score.count:,}", score.note)
        if not result.scores:
            state = "skipped" if result.skipped else "not reached"
            table.add_row(result.task, state, "", "", result.skipped.replace("\n", " "))
    text = io.StringIO()
    Console(file=text, width=WIDTH, color_system=None, force_terminal=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).rstrip()
