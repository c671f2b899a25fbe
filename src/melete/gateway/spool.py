"""The spool: events as lines in files that only their writer appends to, so that a killed proxy loses nothing.

A segment is `<writer>-<number>.jsonl`. Each line reaches it by one `write` to a descriptor opened for appending, whole
or not at all: what a full disk cut off is truncated again, so who reads whole lines never meets half an event.
A reserve file holds space for the ends of requests that are under way: it is released when the disk is full, and until
it can be made again `ready` is false and new traffic is refused. Only this file's standard library imports, because it
is loaded inside LiteLLM's process. Limits: nothing is synced, so a power cut may take the last seconds; a killed
process or a crashed database takes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from melete.gateway.events import Event, to_line

SEGMENT_BYTES = 16 * 1024 * 1024
RESERVE_BYTES = 1024 * 1024
HELD_LINES = 10_000
RETRY_S = 1.0


def writer_name(pid: int | None = None) -> str:
    """Who writes, as `host:pid:start`; the start of the process in clock ticks tells a reused pid apart."""
    pid = os.getpid() if pid is None else pid
    return f"{socket.gethostname()}:{pid}:{_started(pid)}"


def alive(writer: str) -> bool:
    """Whether the process of a writer still runs; a writer on another host cannot be seen and counts as alive."""
    host, pid, started = writer.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    return _started(int(pid)) == started


def segment(folder: Path, writer: str, number: int) -> Path:
    """Path of a segment; segments of one writer sort in the order in which they were written."""
    return folder / f"{writer.replace(':', '_')}-{number:06d}.jsonl"


class SpoolWriter:
    """Appends events to segments of its own in a folder, which it makes for the owner alone.

    Args:
        folder: where segments lie.
        segment_bytes: size after which a new segment is begun, in bytes.
        reserve_bytes: space kept for what is under way when the disk fills, in bytes.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.writer = writer_name()
        self.segment_bytes = segment_bytes
        self.reserve_bytes = reserve_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._held: deque[bytes] = deque(maxlen=HELD_LINES)
        self._reserve = folder / f"{self.writer.replace(':', '_')}.reserve"
        self._tried_s = -RETRY_S
        self._descriptor: int | None = None
        self._number = 0
        self._size = 0

    @property
    def held(self) -> int:
        """Lines that no disk would take yet and that wait in memory."""
        return len(self._held)

    def ready(self) -> bool:
        """Whether new traffic can be recorded: nothing is held and the reserve is there; tries again each second."""
        with self._lock:
            if not self._held and self._reserve.exists():
                return True
            if self._clock() - self._tried_s < RETRY_S:
                return False
            self._tried_s = self._clock()
            try:
                self._flush()
                self._make_reserve()
            except OSError:
                return False
            return True

    def write(self, event: Event) -> None:
        """Writes one event.

        Raises:
            OSError: the disk did not take it; nothing of it is left in the segment.
        """
        self.write_line(to_line(event))

    def write_line(self, line: bytes) -> None:
        """Writes one line that ends with its newline.

        Raises:
            OSError: the disk did not take it; nothing of it is left in the segment.
        """
        with self._lock:
            self._flush()
            self._append(line)

    def keep(self, event: Event) -> None:
        """Writes the event of a request that is under way: gives up the reserve if it must, else holds it in memory."""
        self.keep_line(to_line(event))

    def keep_line(self, line: bytes) -> None:
        """The same for a line that ends with its newline."""
        with self._lock:
            self._held.append(line)
            try:
                self._flush()
            except OSError:
                self._reserve.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    self._flush()

    def close(self) -> None:
        """Writes what is held if it can, gives the reserve back and closes the segment."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._reserve.unlink(missing_ok=True)
                self._flush()
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _flush(self) -> None:
        while self._held:
            self._append(self._held[0])
            self._held.popleft()

    def _append(self, line: bytes) -> None:
        if self._descriptor is None or self._size + len(line) > self.segment_bytes or self._deleted():
            self._next_segment()
        assert self._descriptor is not None
        try:
            written = os.write(self._descriptor, line)
        except OSError:
            self._cut()
            raise
        if written < len(line):
            self._cut()
            raise OSError(errno.ENOSPC, "the disk took only a part of an event")
        self._size += written

    def _deleted(self) -> bool:
        """Whether the segment was deleted since the last line, as those with contents are when they have been read."""
        assert self._descriptor is not None
        return os.fstat(self._descriptor).st_nlink == 0

    def _cut(self) -> None:
        """Takes half a line out again; this process is the only one that appends to the file."""
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, self._size)

    def _next_segment(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        opened = None
        while opened is None:  # a segment that is there belongs to another writer of this process
            path = segment(self.folder, self.writer, self._number)
            self._number += 1
            with contextlib.suppress(FileExistsError):
                opened = os.open(
                    path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
                )
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = opened
        self._size = 0

    def _make_reserve(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        opened = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(opened, 0, self.reserve_bytes)
            else:
                os.write(opened, bytes(self.reserve_bytes))
        except OSError:
            self._reserve.unlink(missing_ok=True)
            raise
        finally:
            os.close(opened)


def _started(pid: int) -> str:
    """Start of a process in clock ticks since the machine's, "-" where there is no /proc, "" when it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat[stat.rindex(")") + 2 :].split()
        return "" if fields[0] == "Z" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "-"
