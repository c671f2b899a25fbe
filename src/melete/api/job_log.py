"""The log of a job: what its processes said, one file after the other, as one text whose places are whole numbers.

A place is the number of the process, shifted by `SHIFT` bits, and the bytes within its file. So it stays right when a
process before it says more, as one does that is tried again; who follows the log then reads that one with `step=`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from melete.api import lines, paging
from melete.api.job_records import JobLogLine, JobLogPage
from melete.api.lines import LogAsked, Window
from melete.api.store import Store
from melete.errors import UnknownNameError

if TYPE_CHECKING:
    from melete.jobs.states import Job, Step

SHIFT = 40
"""Bits of a place that are bytes: a terabyte of each process."""
WITHIN = (1 << SHIFT) - 1


def page(store: Store, job: Job, asked: LogAsked, step: str | None) -> JobLogPage:
    """Some lines: the last ones, those before a cursor, or those after a place.

    Raises:
        UnknownNameError: the job has no such process.
        ConfigError: the cursor does not belong to this log.
    """
    asked.check()
    steps = [one for one in job.steps if step in (None, one.name)]
    if not steps:
        raise UnknownNameError("process of this job", str(step), [one.name for one in job.steps])
    if asked.after is not None:
        return _since(store, job, steps, asked, asked.after)
    of = f"job log {job.id} {step or ''} {asked.search or ''}"
    return _before(store, job, steps, asked, of)


def _before(store: Store, job: Job, steps: list[Step], asked: LogAsked, of: str) -> JobLogPage:
    """From the last process backwards, until there are lines enough."""
    place = paging.place(asked.cursor, of, int)
    last = steps[-1].number if place is None else place >> SHIFT
    within = None if place is None else place & WITHIN
    found: list[JobLogLine] = []
    start = end = None
    for step in reversed([one for one in steps if one.number <= last]):
        here = within if step.number == last else None
        window = lines.before(_file(store, job, step), here, asked.limit - len(found), asked.search)
        found = _shown(step, window) + found
        if end is None and (window.end > 0 or step is steps[0]):  # what has said nothing yet is still to come
            end = _place(step, window.end)
        start = _place(step, window.start)
        if window.start > 0 or len(found) >= asked.limit:
            break
    first = start is None or start <= _place(steps[0], 0)
    return JobLogPage(
        data=found, next_cursor=None if first else paging.cursor_at(start or 0, of), end=end or 0
    )


def _since(store: Store, job: Job, steps: list[Step], asked: LogAsked, after: int) -> JobLogPage:
    """From a place on, through the processes that come after it."""
    found: list[JobLogLine] = []
    end = after
    for step in (one for one in steps if one.number >= after >> SHIFT):
        file = _file(store, job, step)
        place = after & WITHIN if step.number == after >> SHIFT else 0
        window = lines.since(file, place, asked.limit - len(found), asked.search)
        found += _shown(step, window)
        if window.end > 0 or step.number == after >> SHIFT:
            end = _place(step, window.end)
        if window.end < lines.size_of(file) or len(found) >= asked.limit:
            break
    return JobLogPage(data=found, next_cursor=None, end=end)


def _shown(step: Step, window: Window) -> list[JobLogLine]:
    return [
        JobLogLine(offset=_place(step, line.offset), text=line.text, step=step.name) for line in window.lines
    ]


def _place(step: Step, within: int) -> int:
    return (step.number << SHIFT) + within


def _file(store: Store, job: Job, step: Step) -> Path:
    from melete.jobs.child import log_file

    return log_file(store.settings, job.id, step.number, step.name)
