"""A text file that grows by whole lines: each line reaches the file at once, or not at all.

What a killed process or a full disk cut short is ended by the next opening, and left out by `read_json_lines`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from melete.runs.folder import storage_error


class LineFile:
    """Appends lines to a file, unbuffered.

    Raises:
        StorageError: the disk is full or the file cannot be written; the lines before stay whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("ab+", buffering=0)
            end = self._file.seek(0, os.SEEK_END)
            if end:
                self._file.seek(end - 1)
                cut_short = self._file.read(1) != b"\n"
            if end and cut_short:
                self._write(b"\n")
        except OSError as error:
            raise storage_error(path, error) from error

    def append(self, line: str) -> None:
        """Appends a line; `line` has no line end of its own."""
        end = os.fstat(self._file.fileno()).st_size
        try:
            self._write(line.encode() + b"\n")
        except OSError as error:
            os.ftruncate(self._file.fileno(), end)
            raise storage_error(self.path, error) from error

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        while data:  # a nearly full disk takes a part and says so only at the next write
            data = data[self._file.write(data) :]


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a line that is not whole is left out, a file that is not there has none."""
    try:
        return _objects(path.read_bytes())
    except FileNotFoundError:
        return []


def last_json_lines(path: Path, size: int = 16_384) -> list[dict[str, Any]]:
    """The objects in the last `size` bytes of a JSONL file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return _objects(file.read())
    except FileNotFoundError:
        return []


def _objects(data: bytes) -> list[dict[str, Any]]:
    rows = []
    for line in data.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
