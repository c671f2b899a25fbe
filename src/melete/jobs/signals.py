"""SIGINT and SIGTERM as a request to a run: the first one asks it to stop, the second one aborts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from melete.runs.run import Run


@contextmanager
def stop_signals(run: Run) -> Iterator[None]:
    """SIGINT and SIGTERM ask the run to stop, the second one raises KeyboardInterrupt; restored at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        run.stop()
        if not run.silent:  # straight to the descriptor: a print may be interrupted in the middle
            os.write(
                2, f"\n{signal.Signals(number).name}: stopping after this step; once more aborts\n".encode()
            )

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
