"""Where the time of a run went: seconds by section, each moment counted once, so that the parts add up to the whole.

Sections nest and the innermost one gets the time: saving a checkpoint inside the steps counts as saving.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds by section; starts in `first`."""

    def __init__(self, first: str = "set-up") -> None:
        self.seconds: dict[str, float] = {}
        self._stack = [first]
        self._since_s = time.perf_counter()

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Counts the time inside the `with` block under `name`."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        """Begins a section inside the current one."""
        self.settle()
        self._stack.append(name)

    def leave(self) -> None:
        """Ends the current section; the first one becomes `other` once a section has ended inside it."""
        self.settle()
        self._stack.pop()
        if len(self._stack) == 1:
            self._stack = ["other"]

    def settle(self) -> dict[str, float]:
        """Counts the time up to now and returns the seconds by section."""
        now_s = time.perf_counter()
        name = self._stack[-1]
        self.seconds[name] = self.seconds.get(name, 0.0) + now_s - self._since_s
        self._since_s = now_s
        return self.seconds
