"""The trace of an episode: one JSON line per step, append-only, secrets redacted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


class TraceWriter:
    """Appends steps to a trace file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **fields: Any) -> None:
        """Appends one step."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes the file."""
        raise NotImplementedError


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The steps of a trace file."""
    raise NotImplementedError
