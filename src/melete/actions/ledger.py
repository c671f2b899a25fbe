"""Results by idempotency key, so that a call that comes twice acts once.

A key stands for one call: the tool's name and arguments. The first call with a key acts; a later one gets the first
one's result, waits for it if it is still under way, and is refused if the arguments differ. If it is not known how the
first one ended (it timed out, or the process died while it ran), the later one is refused rather than acted on twice.

In memory the newest `KEPT` keys are remembered. With a path, every key is kept in a JSONL file, where a call is
written down before it acts and its result after, so that the promise holds across a restart of the process; the file
belongs to one process at a time.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from melete.runs.lines import LineFile, read_json_lines

KEPT = 100_000
UNKNOWN = "this call was made before and it is not known whether it acted; look at the state before you go on"


@dataclass(frozen=True)
class ToolResult:
    """How a call ended.

    Attributes:
        ok: whether the tool did what it was asked to.
        content: what the model reads; text of the value, or of the error.
        error: what went wrong, for the model to read; None if `ok`.
        attempts: how often the function was called; 0 if it was not, because the call was wrong or was made before.
        seconds: wall time, retries and their pauses included.
        value: what the function returned, whole; the guard's preconditions look into it.
    """

    ok: bool
    content: str
    error: str | None = None
    attempts: int = 1
    seconds: float = 0.0
    value: Any = None


class _Entry:
    """One key: the call that it stands for, and its result once there is one."""

    def __init__(self, call: str) -> None:
        self.call = call
        self.result: ToolResult | None = None
        self.freed = False
        self.ended = threading.Event()


class Ledger:
    """What was done under which key. Safe to use from several threads.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        for row in read_json_lines(path) if path else ():
            self._restore(row)
        self._file = LineFile(path) if path else None

    def begin(self, key: str, call: str) -> ToolResult | None:
        """Takes a key for a call; None means: act now and then `end` it. Otherwise the result to answer with.

        Args:
            key: idempotency key.
            call: name and arguments as text, equal for equal calls.
        """
        while True:
            with self._lock:
                entry = self._entries.get(key)
                if entry is None:
                    self._take(key, call)
                    return None
            if entry.call != call:
                return _refused(f"the idempotency key {key!r} belongs to another call; use a new key")
            entry.ended.wait()
            if entry.result:
                return entry.result
            if not entry.freed:
                return _refused(UNKNOWN)

    def end(self, key: str, result: ToolResult | None) -> None:
        """Keeps the result of a key; None says that it is not known how the call ended."""
        with self._lock:
            entry = self._entries[key]
            entry.result = result
            if self._file and result is not None:
                row = {"key": key, "call": entry.call, "result": asdict(result)}
                self._file.append(json_line(row))
        entry.ended.set()

    def free(self, key: str) -> None:
        """Gives a key back: the call surely did not act, and may be made again."""
        with self._lock:
            entry = self._entries.pop(key)
            entry.freed = True
            if self._file:
                self._file.append(json_line({"key": key, "free": True}))
        entry.ended.set()

    def close(self) -> None:
        """Closes the file."""
        if self._file:
            self._file.close()

    def _take(self, key: str, call: str) -> None:
        if self._file:
            self._file.append(json_line({"key": key, "call": call}))
        elif len(self._entries) >= KEPT:
            self._entries.popitem(last=False)
        self._entries[key] = _Entry(call)

    def _restore(self, row: dict[str, Any]) -> None:
        key = row.get("key")
        if not isinstance(key, str):
            return
        if row.get("free"):
            self._entries.pop(key, None)
            return
        entry = self._entries.setdefault(key, _Entry(str(row.get("call"))))
        entry.ended.set()
        if isinstance(row.get("result"), dict):
            entry.result = ToolResult(**row["result"])


def json_line(row: dict[str, Any]) -> str:
    """One line of JSON that can always be written: other values become text, half characters are escaped."""
    line = json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=str)
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(row, separators=(",", ":"), default=str)
    return line


def _refused(text: str) -> ToolResult:
    return ToolResult(False, f"Error: {text}.", f"{text}.", attempts=0)
