"""SIGINT and SIGTERM as a request to stop: to a run, where the second one aborts, or to a loop of ours."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from melete.runs.run import Run


@contextmanager
def handled(handle: Callable[[int], None]) -> Iterator[None]:
    """Calls `handle` with the number of each SIGINT and SIGTERM; what handled them before is restored at the end."""

    def call(number: int, frame: FrameType | None) -> None:
        handle(number)

    before = {number: signal.signal(number, call) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_signals(run: Run) -> Iterator[None]:
    """SIGINT and SIGTERM ask the run to stop, the second one raises KeyboardInterrupt; restored at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        run.stop()
        if not run.silent:  # straight to the descriptor: a print may be interrupted in the middle
            os.write(
                2, f"\n{signal.Signals(number).name}: stopping after this step; once more aborts\n".encode()
            )

    with handled(handle):
        yield
