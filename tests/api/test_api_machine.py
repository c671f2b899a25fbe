"""What the status says of the machine."""

from __future__ import annotations

import threading
import time

from melete.api.machine import Cpus


def test_busy_cpus_are_seen_from_any_thread() -> None:
    cpus = Cpus()
    cpus.percent()
    until_s = time.monotonic() + cpus.STRETCH_S
    while time.monotonic() < until_s:
        pass
    said: list[float] = []
    asked = threading.Thread(target=lambda: said.append(cpus.percent()))
    asked.start()
    asked.join()
    assert 0 < said[0] <= 100
