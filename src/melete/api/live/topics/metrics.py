"""Figures of a run as they grow: first the whole curves, thinned as the API does, then only the points that came since.

    {"whole": Curves}, {"more": Curves}, {"more": Curves}, …

The file is looked at ten times a second (one `stat`), and read on from where it was read to. A file that was
rewritten, as a resume does, or that grew by more than a megabyte at once, is sent whole again. Figures that a topic
names and that are not there yet come with their first value. The points of a `more` are not thinned: a chart that has
collected too many subscribes again. Without `keys` it is an ordinary topic.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import re
from typing import Any, Literal

from pydantic import ValidationError

from melete.api import columns, here
from melete.api.columns import Figure
from melete.api.live.topic import Topic, frame
from melete.api.live.watch import Joined, Message, refusal
from melete.api.records import Curves
from melete.api.run_parts.metrics import MOST_CURVES, CurvesAsked, curve
from melete.api.store import Store
from melete.errors import MeleteError

PATTERN = re.compile(r"/api/v1/runs/([A-Za-z0-9][A-Za-z0-9._-]{0,99})/metrics")
MOST_MORE_BYTES = 1 << 20
TAIL_BYTES = 256
PATIENCE_S = 0.5
"""How long a newcomer waits for all of a long file, before it is sent what was read of it."""
Points = tuple[list[float], list[float], list[float]]


def watch(topic: Topic, store: Store) -> Metrics | None:
    """Watches figures of a run; None if the topic is about none."""
    found = PATTERN.fullmatch(topic.path)
    return Metrics(topic, store, found[1]) if found and topic.asked.get("keys") else None


@dataclasses.dataclass
class Place:
    """How far `metrics.jsonl` was read, and what is known of the figures up to there."""

    inode: int
    offset: int
    tail: bytes
    figures: dict[str, Figure]


class Metrics:
    """Watches figures of one run.

    Args:
        topic: with `keys` in its query.
        store: where the run is.
        run: its id.
    """

    period_s = 0.1

    def __init__(self, topic: Topic, store: Store, run: str) -> None:
        self._topic, self._store, self._run = topic, store, run
        self._file = store.settings.runs / run / "metrics.jsonl"
        self._seen: object = None
        self._place: Place | None = None
        self._refused: Message | None = None
        keys = topic.asked["keys"].split(",")
        self._keys = list(dict.fromkeys(key for key in keys if key))[:MOST_CURVES]

    async def look(self) -> Message | None:
        """See Watch."""
        seen = self._look_at_file()
        if seen == self._seen:
            return None
        self._seen = seen
        more = await asyncio.to_thread(self._read_on)
        if more is not None:
            return self._message("more", more) if more.figures else None
        before = self._refused
        whole = await self._whole()
        return None if whole == before else whole

    async def join(self) -> Joined:
        """See Watch."""
        before, refused = self._place, self._refused
        whole = await self._whole()
        if self._place is None:
            return Joined(None if whole == refused else whole, whole)
        more = await asyncio.to_thread(self._between, before, self._place) if before else None
        if more is None:
            return Joined(whole, whole)
        return Joined(self._message("more", more) if more.figures else None, whole)

    def _look_at_file(self) -> object:
        """Changes when there is something to read, or the run is gone. In the event loop: one `stat`."""
        try:
            found = os.stat(self._file)
        except OSError:
            return (self._file.parent / "run.json").exists()
        return found.st_ino, found.st_size, found.st_mtime_ns

    async def _whole(self) -> Message:
        """The curves as they are; what the API refuses is told as it tells it."""
        self._place = self._refused = None
        seen, self._seen = self._seen, None  # what fails is tried again
        try:
            asked = CurvesAsked.model_validate(self._topic.asked)
            message = self._message("whole", await asyncio.to_thread(self._read_whole, asked))
        except (ValidationError, MeleteError) as error:
            message = self._refused = await refusal(self._topic, error)
        if self._place is not None or self._refused is not None:
            self._seen = seen
        return message

    def _read_whole(self, asked: CurvesAsked) -> Curves:
        run, _ = here.opened(self._store, self._run)
        read = columns.read(run, PATIENCE_S)
        known = read.head.figures
        figures = [
            curve(key, known[key], read.series(key, asked.most, asked.first, asked.last), read.gaps(key))
            for key in self._keys
            if key in known
        ]
        if read.complete:  # if not, the next look reads on
            self._place = self._found(read.head)
        return self._curves(figures, read.head.offset, read.size, complete=read.complete)

    def _found(self, head: columns.Head) -> Place | None:
        """The place up to which the columns were read; None if the file was replaced meanwhile."""
        figures = {key: dataclasses.replace(head.figures[key]) for key in self._keys if key in head.figures}
        try:
            with self._file.open("rb") as file:
                first = max(0, head.offset - TAIL_BYTES)
                file.seek(first)
                tail = file.read(head.offset - first)
                return Place(os.fstat(file.fileno()).st_ino, head.offset, tail, figures)
        except FileNotFoundError:
            return Place(0, 0, b"", figures) if not head.offset else None

    def _read_on(self) -> Curves | None:
        """What came since the last look; None if the curves have to be read as a whole."""
        if self._place is None:
            return None
        return self._advance(self._place, None)

    def _between(self, before: Place, after: Place) -> Curves | None:
        """What came between two places, for those who were sent everything up to the first."""
        return self._advance(before, after.offset) if before.inode == after.inode else None

    def _advance(self, place: Place, until: int | None) -> Curves | None:
        """Reads on from a place, which is moved; None if the file is not the one that was read."""
        try:
            with self._file.open("rb") as file:
                status = os.fstat(file.fileno())
                end = status.st_size if until is None else until
                if status.st_ino != place.inode or not 0 <= end - place.offset <= MOST_MORE_BYTES:
                    return None
                file.seek(place.offset - len(place.tail))
                data = file.read(end - place.offset + len(place.tail))
        except OSError:
            return None
        if not data.startswith(place.tail):
            return None
        lines = data[len(place.tail) : data.rfind(b"\n") + 1]
        place.offset += len(lines)
        place.tail = (place.tail + lines)[-TAIL_BYTES:]
        new = self._added(place.figures, columns.objects(lines)) if lines else {}
        figures = [curve(key, place.figures[key], points) for key, points in new.items()]
        return self._curves(figures, place.offset, end, complete=True)

    def _added(self, figures: dict[str, Figure], rows: list[dict[str, Any]]) -> dict[str, Points]:
        """The points in rows by figure; adds them to what is known of the figures."""
        found: dict[str, Points] = {}
        for row in rows:
            step = _number(row.get("step"))
            if step is None:
                continue
            for key in self._keys:
                value = _number(row.get(key))
                if value is None:
                    continue
                figure = figures.setdefault(key, Figure(-1))
                figure.count += 1
                figure.last, figure.last_step = value, step
                points = found.setdefault(key, ([], [], []))
                if not math.isfinite(value):
                    figure.not_finite += 1
                    continue
                figure.minimum, figure.maximum = min(figure.minimum, value), max(figure.maximum, value)
                if self._inside(step):
                    time_s = _number(row.get("time_s"))
                    for column, one in zip(
                        points, (step, math.nan if time_s is None else time_s, value), strict=True
                    ):
                        column.append(one)
        return found

    def _inside(self, step: float) -> bool:
        first, last = self._topic.asked.get("from"), self._topic.asked.get("to")
        return (first is None or step >= float(first)) and (last is None or step <= float(last))

    def _curves(self, figures: list[Any], read: int, size: int, *, complete: bool) -> Curves:
        return Curves.model_construct(
            run=self._run, complete=complete, read_bytes=read, total_bytes=size, figures=figures
        )

    def _message(self, kind: Literal["whole", "more"], curves: Curves) -> Message:
        payload = f'{{"{kind}":{curves.model_dump_json()}}}'
        return Message(frame(self._topic.text, payload), whole=kind == "whole")


def _number(value: Any) -> float | None:
    """A figure as a number; None for what is none, as the columns leave it out."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    except OverflowError:
        return math.nan
