"""What commands print: tables, ages, JSON; plain where the output is not a terminal.

Rich is loaded only for a table, and keeps its colours to itself under `NO_COLOR` or in a pipe.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Sequence
from typing import Any, Literal

import click

COLOURS = {
    "succeeded": "green",
    "running": "cyan",
    "queued": "cyan",
    "failed": "red",
    "lost": "red",
    "stopped": "yellow",
    "clamp": "yellow",
    "ask": "cyan",
    "refuse": "red",
    "abort": "bold red",
    "better": "green",
    "worse": "red",
    "different": "yellow",
    "none shown": "dim",
}


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Prints a table; on a terminal states are coloured.

    Args:
        head: names of the columns.
        rows: cells.
        right: columns that are aligned to the right.
        spare: columns that a terminal which is too narrow does without, the first ones first.
    """
    cells = [[text(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(head, cells, right, spare)
        return
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    for row in ([*head], *cells):
        aligned = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(head, row, widths, strict=True)
        )
        click.echo("  ".join(aligned).rstrip())


def _rich_table(
    head: Sequence[str], cells: list[list[str]], right: Sequence[str], spare: Sequence[str]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    gap = 2 if console.width >= 100 else 1
    widths = {name: max(map(len, column)) for name, *column in zip(head, head, *cells, strict=True)}
    for name in spare:
        if sum(widths.values()) + gap * len(widths) > console.width:
            del widths[name]
    kept = [name in widths for name in head]
    head, cells = list(itertools.compress(head, kept)), [list(itertools.compress(row, kept)) for row in cells]
    shown = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
    for number, name in enumerate(head):
        justify: Literal["left", "right"] = "right" if name in right else "left"
        shown.add_column(name, justify=justify, overflow="fold", no_wrap=number == 0)
    for row in cells:
        shown.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    console.print(shown)


def text(value: Any) -> str:
    """A value as people read it: numbers short, None as a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 100_000 else f"{value:,.0f}"
    return str(value)


def pairs(rows: Sequence[tuple[str, Any]]) -> None:
    """Prints names and values, aligned."""
    width = max((len(str(name)) for name, _ in rows), default=0)
    for name, value in rows:
        first, *more = text(value).split("\n")
        click.echo(f"  {name:<{width}}  {first}")
        for line in more:
            click.echo(f"  {'':<{width}}  {line}")


def score(value: Any) -> str:
    """A score with its interval and count, or any other value."""
    if not isinstance(value, dict) or "value" not in value or "count" not in value:
        return text(value)
    interval = f" [{text(value['low'])}, {text(value['high'])}]" if value.get("low") is not None else ""
    return f"{text(value['value'])}{interval} n={value['count']}"


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """A curve in one line of text; each cell shows the mean of its stretch."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    cells = min(width, len(finite))
    edges = [i * len(finite) // cells for i in range(cells + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    return "".join("▁▂▃▄▅▆▇█"[round((mean - low) / span * 7) if span else 0] for mean in means)


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
