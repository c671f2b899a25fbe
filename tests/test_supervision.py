"""What background programs share: a request to stop that may come at any moment."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from melete.supervision import StopRequest

AT_EACH_LINE = """
import signal, sys
from melete.supervision import StopRequest

def interrupted(line):
    asked, lines = StopRequest(), 0
    signal.signal(signal.SIGUSR1, asked.set)
    def trace(frame, event, argument):
        nonlocal lines
        lines += 1
        if lines == line:
            signal.raise_signal(signal.SIGUSR1)
        return trace
    sys.settrace(trace)
    asked.wait(0.01)
    sys.settrace(None)
    assert asked.is_set() == (lines >= line), line
    return asked.is_set()

line = 1
while interrupted(line):
    line += 1
print(line)
"""


def test_request_may_come_at_each_line_of_the_wait_for_it() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", AT_EACH_LINE], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(ended.stdout) > 3


def test_request_of_another_thread_ends_the_wait_at_once() -> None:
    asked, began_s = StopRequest(), time.monotonic()
    threading.Timer(0.01, asked.set).start()
    assert asked.wait(60)
    assert asked.wait()
    assert time.monotonic() - began_s < 30


def test_wait_that_nobody_ends_says_so() -> None:
    assert not StopRequest().wait(0.001)
