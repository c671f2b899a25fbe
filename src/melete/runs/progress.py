"""Progress of a loop: a live line with loss, tokens/s and time left on a terminal, a plain line now and then elsewhere.

On a terminal Rich draws one bar and everything said goes above it; `NO_COLOR` and dumb terminals are respected. Where
the output is a file or a pipe, a line comes when at least `PLAIN_EVERY_S` have passed and a tenth of the steps or a
minute.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_EVERY_S = 5.0
PLAIN_AT_LEAST_EVERY_S = 60.0


class Display(Protocol):
    """What shows a loop's progress."""

    def update(self, done: int, values: dict[str, float]) -> None:
        """Shows that `done` steps are done, with the newest figures."""

    def say(self, text: str) -> None:
        """Prints a line without disturbing the progress."""

    def close(self) -> None:
        """Ends the display."""


def display(total: int, start: int, what: str) -> Display:
    """The display that fits this terminal."""
    live = sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    return LiveDisplay(total, start, what) if live else PlainDisplay(total, start, what)


def figures(values: dict[str, float]) -> str:
    """The figures that people watch, if the run logs them: `loss 3.212  5,210 tokens/s`."""
    parts = [f"{key} {values[key]:.4g}" for key in ("loss", "reward") if key in values]
    if "tool_reliability" in values:
        parts.append(f"tools {values['tool_reliability']:.1%}")
    if "tokens_per_task" in values:
        parts.append(f"{values['tokens_per_task']:,.0f} tokens/task")
    if "tokens_per_s" in values:
        parts.append(f"{values['tokens_per_s']:,.0f} tokens/s")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as people say them: `8.2 s`, `3:05`, `2:03:05`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class PlainDisplay:
    """Lines for a file or a pipe."""

    def __init__(self, total: int, start: int, what: str) -> None:
        self.total, self.start, self.what = total, start, what
        self.began_s = self.said_s = time.monotonic()
        self.said_at = start

    def update(self, done: int, values: dict[str, float]) -> None:
        """Prints a line if enough time and steps have passed since the last one."""
        now_s = time.monotonic()
        quiet_s = now_s - self.said_s
        tenth = done - self.said_at >= max(1, (self.total - self.start) // 10)
        if quiet_s < PLAIN_EVERY_S or not (tenth or quiet_s >= PLAIN_AT_LEAST_EVERY_S):
            return
        self.said_s, self.said_at = now_s, done
        left_s = (now_s - self.began_s) / max(1, done - self.start) * (self.total - done)
        left_s = min(left_s, values.get("left_s", left_s))
        left = f"{duration(left_s)} left" if done < self.total else f"in {duration(now_s - self.began_s)}"
        self.say("  ".join(filter(None, (f"{self.what} {done:,}/{self.total:,}", figures(values), left))))

    def say(self, text: str) -> None:
        """Prints a line."""
        print(text, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class LiveDisplay:
    """One Rich bar on a terminal, drawn at 4 Hz."""

    def __init__(self, total: int, start: int, what: str) -> None:
        self.progress = _rich_progress()
        self.task = self.progress.add_task(what, total=total, completed=start, figures="")
        self.progress.start()

    def update(self, done: int, values: dict[str, float]) -> None:
        """Moves the bar."""
        self.progress.update(self.task, completed=done, figures=figures(values))

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Draws the last state and gives the terminal back."""
        self.progress.stop()


def _rich_progress() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", style="bold"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        refresh_per_second=4,
    )
