"""What commands print: tables, ages, JSON; plain where the output is not a terminal.

Rich is loaded only for a table, and keeps its colours to itself under `NO_COLOR` or in a pipe.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import click

COLOURS = {
    "succeeded": "green",
    "running": "cyan",
    "queued": "cyan",
    "failed": "red",
    "lost": "red",
    "stopped": "yellow",
}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[str] = ()) -> None:
    """Prints a table; columns named in `right` are aligned to the right, states are coloured."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=not sys.stdout.isatty())
    shown = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, header_style="bold")
    for name in head:
        shown.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="fold",
            no_wrap=not console.is_terminal,
        )
    for row in rows:
        shown.add_row(*(Text(text(cell), style=COLOURS.get(str(cell), "")) for cell in row))
    console.print(shown, width=None if console.is_terminal else 10_000, crop=False)


def text(value: Any) -> str:
    """A value as people read it: numbers short, None as a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 100_000 else f"{value:,.0f}"
    return str(value)


def age(seconds: float) -> str:
    """A stretch of time in one unit: `12 s`, `5 min`, `3 h`, `2 d`."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def print_json(value: Any) -> None:
    """Prints JSON that every parser reads: NaN and infinities become null."""
    click.echo(json.dumps(_plain(value), indent=1, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
