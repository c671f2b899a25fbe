"""Figures of a run as columns: a cache beside `metrics.jsonl` that grows with it and can be thrown away at any time.

    runs/<id>/.columns/head.json      how far metrics.jsonl was read, and what is known of each figure
                       step, time_s   of each row (float64)
                       0.row, 0       rows that have the first figure (uint32), and its values (float64)

Only what was added is parsed, and never for longer than a budget: of a long run that nobody looked at before, the
first answers hold its beginning and say so. A file that was rewritten (a resume drops the steps that it repeats) no
longer has the bytes that were read last, and is read anew. Long series are thinned to the lowest and the highest value
of each stretch, so that a spike is never hidden. A row without a step is left out; a value that is not finite is
counted, not drawn.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from melete.api.lines import tail
from melete.runs.folder import replace_file, storage_error
from melete.supervision import one_at_a_time

FOLDER = ".columns"
VERSION = 1
BLOCK_BYTES = 1 << 20
MOST_KEYS = 2_000
MOST_GAPS = 100
LONGEST_KEY = 200
BUDGET_S = 0.1
Floats: TypeAlias = npt.NDArray[np.float64]
Rows: TypeAlias = npt.NDArray[np.uint32]


@dataclass
class Figure:
    """What is known of one figure: where its column is, and a summary of it."""

    file: int
    count: int = 0
    not_finite: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    last: float = math.nan
    last_step: float = math.nan


@dataclass
class Head:
    """How far `metrics.jsonl` was read; `tail` is a digest of the last bytes before `offset`."""

    version: int = VERSION
    offset: int = 0
    tail: str = ""
    rows: int = 0
    figures: dict[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Columns:
    """The columns of a run as far as they were read.

    Attributes:
        folder: the cache.
        head: what is in it.
        size: bytes of `metrics.jsonl`.
        complete: whether all of it was read.
    """

    folder: Path
    head: Head
    size: int
    complete: bool

    def series(
        self, key: str, most: int, low: float | None = None, high: float | None = None
    ) -> tuple[Floats, Floats, Floats]:
        """Steps, times (seconds since the epoch) and values of a figure, each (N,), at most `most` of them.

        Args:
            key: one of `head.figures`.
            most: points at most; the first, the last, and the extremes of each stretch stay.
            low: first step.
            high: last step.
        """
        figure = self.head.figures[key]
        steps, times_s = self._axes
        values = np.fromfile(self.folder / f"{figure.file}", np.float64, figure.count)
        rows: Rows | None = None  # every row has one
        if figure.count < self.head.rows:
            rows = np.fromfile(self.folder / f"{figure.file}.row", np.uint32, figure.count)
        fine = np.isfinite(values)
        if low is not None or high is not None:
            own = steps if rows is None else steps[rows]
            fine &= (own >= (-math.inf if low is None else low)) & (
                own <= (math.inf if high is None else high)
            )
        chosen = None if fine.all() else np.flatnonzero(fine)
        kept = thinned(values if chosen is None else values[chosen], most)
        kept = kept if chosen is None else chosen[kept]
        at = kept if rows is None else rows[kept]
        return steps[at], times_s[at], values[kept]

    def gaps(self, key: str) -> list[float]:
        """Steps at which a figure is not finite, the newest `MOST_GAPS` of them."""
        figure = self.head.figures[key]
        if not figure.not_finite:
            return []
        values = np.fromfile(self.folder / f"{figure.file}", np.float64, figure.count)
        rows = np.flatnonzero(~np.isfinite(values))[-MOST_GAPS:]
        if figure.count < self.head.rows:
            rows = np.fromfile(self.folder / f"{figure.file}.row", np.uint32, figure.count)[rows].astype(
                np.int64
            )
        steps: list[float] = self._axes[0][rows].tolist()
        return steps

    @cached_property
    def _axes(self) -> tuple[Floats, Floats]:
        """Step and time of each row."""
        steps = np.fromfile(self.folder / "step", np.float64, self.head.rows)
        return steps, np.fromfile(self.folder / "time_s", np.float64, self.head.rows)


def thinned(values: Floats, most: int) -> npt.NDArray[np.int64]:
    """Indices of at most `most` (6 or more) values: the ends, and the lowest and highest of each stretch, in order."""
    if len(values) <= most:
        return np.arange(len(values))
    width = -(-len(values) // (most // 2 - 2))
    whole = len(values) // width * width
    stretches = values[:whole].reshape(-1, width)
    starts = np.arange(0, whole, width)
    found = [starts + stretches.argmin(axis=1), starts + stretches.argmax(axis=1)]
    if rest := len(values) - whole:
        found.append(np.array([whole + values[-rest:].argmin(), whole + values[-rest:].argmax()]))
    return np.unique(np.concatenate([*found, [0, len(values) - 1]]))


def read(run: Path, budget_s: float = BUDGET_S) -> Columns:
    """The columns of a run, brought up to date for at most `budget_s` seconds.

    Raises:
        StorageError: the cache cannot be written.
    """
    source, folder = run / "metrics.jsonl", run / FOLDER
    try:
        size = source.stat().st_size
    except FileNotFoundError:
        return Columns(folder, Head(), 0, complete=True)
    head = _head(folder)
    if head.offset == size and _is_same(source, head):
        return Columns(folder, head, size, complete=True)
    try:
        folder.mkdir(exist_ok=True)
        with one_at_a_time(folder / "lock", wait=False) as mine:
            head = _head(folder)
            if mine:
                head, complete = _catch_up(source, folder, head, time.monotonic() + budget_s)
                return Columns(folder, head, size, complete)
    except OSError as error:
        raise storage_error(folder / "head.json", error) from error
    return Columns(folder, head, size, complete=False)


def _head(folder: Path) -> Head:
    """What is in the cache; one that cannot be read is empty."""
    try:
        values = json.loads((folder / "head.json").read_text(encoding="utf-8"))
        figures = {key: Figure(**figure) for key, figure in values.pop("figures").items()}
        head = Head(**values, figures=figures)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Head()
    return head if head.version == VERSION else Head()


def _is_same(source: Path, head: Head) -> bool:
    """Whether a file still has the bytes that were read last."""
    with source.open("rb") as file:
        return head.tail == tail(file, head.offset)


def _catch_up(source: Path, folder: Path, head: Head, until_s: float) -> tuple[Head, bool]:
    """Reads on until the end or the time; returns what is known then, and whether it is all."""
    with source.open("rb") as file:
        if head.tail != tail(file, head.offset):
            for old in folder.iterdir():
                if old.name != "lock":
                    old.unlink()
            head = Head()
        complete, block_bytes = False, BLOCK_BYTES
        while time.monotonic() < until_s:
            file.seek(head.offset)
            block = file.read(block_bytes)
            whole = block[: block.rfind(b"\n") + 1]
            if not whole:  # a line that is being written, or one longer than a block
                complete = len(block) < block_bytes
                if complete:
                    break
                block_bytes *= 2
                continue
            _add(folder, head, objects(whole))
            head.offset += len(whole)
        head.tail = tail(file, head.offset)
    replace_file(folder / "head.json", json.dumps(asdict(head)))
    return head, complete


def objects(block: bytes) -> list[dict[str, Any]]:
    """The objects in whole lines of JSON; at once where all are sound, else line by line."""
    try:
        found = json.loads(b"[" + block.rstrip(b"\n").replace(b"\n", b",") + b"]")
    except (ValueError, RecursionError):
        found = []
        for line in block.splitlines():
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError):
                continue
    return [row for row in found if isinstance(row, dict)]


def _add(folder: Path, head: Head, objects: Sequence[dict[str, Any]]) -> None:
    """Appends rows to the columns. Rows of one shape (the same keys in the same order) are converted together."""
    objects = [row for row in objects if isinstance(row.get("step"), int | float)]
    shapes: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(objects):
        shapes.setdefault(tuple(row), []).append(number)
    steps, times_s = np.full(len(objects), np.nan), np.full(len(objects), np.nan)
    parts: dict[str, list[tuple[npt.NDArray[np.int64], Floats]]] = {}
    for keys, members in shapes.items():
        rows, table = np.array(members), _table([tuple(objects[number].values()) for number in members])
        for key, values in zip(keys, table.T, strict=True):
            if key == "step":
                steps[rows] = values
            elif key == "time_s":
                times_s[rows] = values
            elif _is_figure(objects[members[-1]][key]) and _known(head, key):
                parts.setdefault(key, []).append((rows, values))
    for key, found in parts.items():
        rows, values = (np.concatenate(both) for both in zip(*found, strict=True))
        order = np.argsort(rows)
        _extend(folder, head.figures[key], head.rows, rows[order], values[order], steps)
    _append(folder / "step", head.rows, steps)
    _append(folder / "time_s", head.rows, times_s)
    head.rows += len(objects)


def _table(rows: list[tuple[Any, ...]]) -> Floats:
    """Values of rows of one shape as (rows, keys); what is no number is NaN."""
    try:
        return np.array(rows, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        return np.array([[_number(value) for value in row] for row in rows], dtype=np.float64)


def _number(value: Any) -> float:
    try:
        return float(value) if _is_figure(value) else math.nan
    except OverflowError:
        return math.nan


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _known(head: Head, key: str) -> bool:
    """Whether a figure has a column, which it gets unless there are too many or this is no name."""
    plain = len(key) <= LONGEST_KEY and key.isprintable()
    if plain and key not in head.figures and len(head.figures) < MOST_KEYS:
        head.figures[key] = Figure(len(head.figures))
    return key in head.figures


def _extend(
    folder: Path, figure: Figure, first: int, rows: npt.NDArray[np.int64], values: Floats, steps: Floats
) -> None:
    """Appends to the column of a figure and to its summary; `rows` count from the row `first`."""
    _append(folder / f"{figure.file}.row", figure.count, (rows + first).astype(np.uint32))
    _append(folder / f"{figure.file}", figure.count, values)
    fine = np.isfinite(values)
    figure.count += len(values)
    figure.not_finite += int(len(values) - fine.sum())
    if fine.any():
        figure.minimum = min(figure.minimum, float(values[fine].min()))
        figure.maximum = max(figure.maximum, float(values[fine].max()))
    figure.last, figure.last_step = float(values[-1]), float(steps[rows[-1]])


def _append(path: Path, count: int, values: Floats | Rows) -> None:
    """Writes values after the first `count`; what a process that was killed left behind them is cut off."""
    with path.open("ab") as file:
        file.truncate(count * values.itemsize)
        file.write(values.tobytes())
