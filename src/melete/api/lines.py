"""Lines of a text file that grows: its end, what was before, what came since, and those that hold a word.

A place is a number of bytes from the beginning. Little is read for one answer however large the file is, so an answer
may hold fewer lines than asked for and still lead on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, Field

from melete.api.clean import text
from melete.api.records import LogLine
from melete.api.store import PLAIN
from melete.errors import ConfigError

LOOKED_BYTES = 1 << 20
"""Looked through for one answer."""
SEARCHED_BYTES = 4 << 20
TAIL_BYTES = 512
LONGEST_LINE = 4_000
"""Characters of one line."""


class LogAsked(BaseModel):
    """Which lines."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(200, ge=1, le=1_000, description="Lines at most.")
    cursor: str | None = Field(
        None,
        max_length=2_000,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="next_cursor: the lines before.",
        examples=["WyIyYzRhYjYxMGYxZDgiLCA1MF0"],
    )
    after: int | None = Field(
        None, ge=0, lt=2**53, description="`end` of the answer before: what came since.", examples=[18_432]
    )
    search: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=PLAIN,
        description="Only lines with this text, in any case.",
        examples=["error"],
    )

    def check(self) -> None:
        """Refuses what contradicts itself.

        Raises:
            ConfigError: both `after` and `cursor` were given.
        """
        if self.after is not None and self.cursor is not None:
            raise ConfigError("after and cursor were both given.", allowed="One of them, or none.")


@dataclass(frozen=True)
class Window:
    """Some lines, oldest first; `start` and `end` are the places between which they were looked for."""

    lines: list[LogLine]
    start: int
    end: int


def size_of(file: Path) -> int:
    """Its bytes; 0 where it is not there yet."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def tail(file: IO[bytes], place: int) -> str:
    """A digest of the last bytes before a place: a file that was rewritten has another one there."""
    file.seek(max(0, place - TAIL_BYTES))
    return hashlib.sha256(file.read(min(TAIL_BYTES, place))).hexdigest()[:32]


def since(file: Path, place: int, limit: int, search: str | None) -> Window:
    """The first lines after a place."""
    size = size_of(file)
    most = SEARCHED_BYTES if search else LOOKED_BYTES
    start = min(place, size)
    found = _lines(_between(file, start, min(size, start + most)), start)
    if found and start + most < size and len(found) > 1:
        found.pop()  # its end is in the next answer
    end = found[-1][0] + len(found[-1][1]) if found else start
    kept = [line for line in found if _matches(line[1], search)]
    if len(kept) > limit:
        kept = kept[:limit]
        end = kept[-1][0] + len(kept[-1][1])
    return Window([_shown(line) for line in kept], start, end)


def before(file: Path, place: int | None, limit: int, search: str | None) -> Window:
    """The last lines before a place, or before the end."""
    size = size_of(file)
    most = SEARCHED_BYTES if search else LOOKED_BYTES
    end = size if place is None else min(place, size)
    start = max(0, end - most)
    found = _lines(_between(file, start, end), start)
    if start > 0 and len(found) > 1:
        found = found[1:]  # its beginning is in the answer after this one
        start = found[0][0]
    kept = [line for line in found if _matches(line[1], search)]
    if len(kept) > limit:
        kept = kept[-limit:]
        start = kept[0][0]
    return Window([_shown(line) for line in kept], start, end)


def _between(file: Path, start: int, end: int) -> bytes:
    if start >= end:
        return b""
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(end - start)


def _lines(data: bytes, start: int) -> list[tuple[int, bytes]]:
    """Lines with their ends and the place where each begins."""
    found = []
    for line in data.split(b"\n"):
        found.append((start, line + b"\n"))
        start += len(line) + 1
    last_start, last = found.pop()
    if last != b"\n":
        found.append((last_start, last[:-1]))
    return found


def _matches(line: bytes, search: str | None) -> bool:
    return search is None or search.lower() in line.decode("utf-8", "replace").lower()


def _shown(line: tuple[int, bytes]) -> LogLine:
    return LogLine(offset=line[0], text=text(line[1].decode("utf-8", "replace").rstrip("\r\n"), LONGEST_LINE))
