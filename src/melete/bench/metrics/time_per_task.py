"""Time per task: from the start of the first request to the end of the last one."""

from melete.bench.columns import Array, Columns
from melete.bench.metric import PerTask


def _time(columns: Columns) -> Array:
    started = columns.figure("started_s")
    return columns.largest(started + columns.figure("latency_ms") / 1000) + columns.largest(-started)


METRIC = PerTask(
    title="time per task",
    unit="s",
    better="lower",
    order=7,
    note="Wall time between the first request's start and the last one's end; starting the harness is not in it.",
    of=_time,
)
