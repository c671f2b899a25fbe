"""What the machine has and how busy it is; the GPUs' driver is asked in the background, because it may take seconds."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import psutil

import melete
from melete.api.records import Gpu, Memory

FRESH_S = 5.0
"""Age at which what the driver said is asked again."""
WAIT_S = 20.0
QUERY = "index,name,driver_version,memory.total,memory.used,utilization.gpu"
LIBRARIES = ("torch", "transformers", "fastapi", "pydantic", "sqlalchemy", "numpy")


class Gpus:
    """The GPUs of this machine as they were a few seconds ago."""

    def __init__(self) -> None:
        self._found: list[Gpu] | None = None if shutil.which("nvidia-smi") else []
        self._asked_s = 0.0
        self._lock = threading.Lock()

    def now(self) -> list[Gpu] | None:
        """What was found last; None until the driver has answered."""
        if self._found == [] and not shutil.which("nvidia-smi"):
            return []
        with self._lock:
            due = time.monotonic() - self._asked_s > FRESH_S
            if due:
                self._asked_s = time.monotonic()
        if due:
            threading.Thread(target=self._ask, name="gpus", daemon=True).start()
        return self._found

    def _ask(self) -> None:
        self._found = ask()


def ask() -> list[Gpu]:
    """Asks the driver; no GPU where it does not answer."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parsed(answer)


def parsed(answer: str) -> list[Gpu]:
    """GPUs from the driver's table; it says `[N/A]` where it does not know."""
    found = []
    for line in answer.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 6 and cells[0].isdecimal() and cells[3].isdecimal():
            busy = float(cells[5]) if cells[5].replace(".", "", 1).isdecimal() else None
            used = int(cells[4]) if cells[4].isdecimal() else 0
            found.append(
                Gpu(
                    index=int(cells[0]), name=cells[1], driver=cells[2], memory_bytes=int(cells[3]) << 20,
                    memory_used_bytes=used << 20, busy_percent=busy,
                )
            )  # fmt: skip
    return found


def memory() -> Memory:
    """Main memory."""
    found = psutil.virtual_memory()
    return Memory(total_bytes=found.total, free_bytes=found.available)


def disk(folder: Path) -> Memory:
    """The disk that a folder is on; the folder need not exist."""
    place = next((one for one in (folder, *folder.parents) if one.is_dir()), Path("/"))
    found = shutil.disk_usage(place)
    return Memory(total_bytes=found.total, free_bytes=found.free)


class Cpus:
    """How busy the CPUs are, over stretches that are long enough to say something.

    `psutil.cpu_percent` remembers its last look for each thread, and requests come in any.
    """

    STRETCH_S = 0.9
    FIRST_S = 0.1

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._percent = 0.0
        self._looked_s = float("-inf")
        self._before = (0.0, 0.0)

    def percent(self) -> float:
        """Share of all CPUs in percent since the last look, which is a second ago or more."""
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._looked_s < self.STRETCH_S:
                return self._percent
            if self._looked_s < 0:
                self._before = _busy_and_all()
                time.sleep(self.FIRST_S)
            busy, whole = _busy_and_all()
            if whole > self._before[1]:
                share = (busy - self._before[0]) / (whole - self._before[1])
                self._percent = round(100 * min(1.0, max(0.0, share)), 1)
            self._before, self._looked_s = (busy, whole), now_s
            return self._percent


def _busy_and_all() -> tuple[float, float]:
    """CPU seconds of this machine so far: those with work, and all."""
    times = psutil.cpu_times()
    whole = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return whole - times.idle - getattr(times, "iowait", 0.0), whole


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host() -> str:
    """Name of this machine."""
    return socket.gethostname()


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of Melete and of the libraries that matter, without importing them."""
    found = {"melete": melete.__version__}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
