"""Readers of text and row files, plain or gzipped: streaming, in constant memory, with errors that name file and line.

A reader yields `Item`s. An item keeps its content unparsed, so that skipping to a position and drawing a split by
hash cost no JSON parsing. Formats: `.jsonl`, `.json`, `.csv` (rows) and anything else that is UTF-8 (text, one file is
one document unless it is read in passages). Limits: a `.json` file is loaded whole, and so is a text document.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from melete.errors import DatasetError

PASSAGE_CHARS = 16_384


@dataclass(frozen=True, slots=True)
class Item:
    """One document or row as it lies in a file: raw JSON bytes, text, or a parsed row."""

    file: str
    line: int
    content: bytes | str | dict[str, Any]

    @property
    def where(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"

    def uniform(self) -> float:
        """A number in [0, 1) that depends on the content alone: equal items fall into the same split."""
        data = self.content
        if isinstance(data, dict):
            data = json.dumps(data, sort_keys=True, ensure_ascii=False)
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(data.strip(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") >> 11) / 2**53

    def row(self) -> dict[str, Any]:
        """The item as a row.

        Raises:
            DatasetError: the line is not a JSON object.
        """
        if isinstance(self.content, dict):
            return self.content
        if isinstance(self.content, str):
            return {"text": self.content}
        try:
            row = json.loads(self.content)
        except ValueError as error:
            raise DatasetError(f"{self.where}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{self.where}: a row is a JSON object; found {type(row).__name__}.")
        return row

    def text(self) -> str:
        """The item as a text document.

        Raises:
            DatasetError: the row has no text.
        """
        if isinstance(self.content, str):
            return self.content
        row = self.row()
        text = row.get("text")
        if not isinstance(text, str):
            found = f"keys {', '.join(row)}" if "text" not in row else f"text of type {type(text).__name__}"
            raise DatasetError(f"{self.where}: a text row needs a string 'text'; found {found}.")
        return text


def is_rows(path: Path) -> bool:
    """Whether a file holds rows (JSON lines, JSON, CSV) and not plain text."""
    return _format(path) in ("jsonl", "json", "csv")


def read(path: Path, *, name: str | None = None, passages: int = 0) -> Iterator[Item]:
    """Yields the items of a file in order.

    Args:
        path: file to read.
        name: name for error messages, the path by default.
        passages: cut text files into passages of at most this many characters, at line ends; 0 keeps a file whole.

    Raises:
        DatasetError: the file is missing, truncated, not UTF-8, or not of its format.
    """
    name = name or str(path)
    try:
        with _open(path) as file:
            match _format(path):
                case "jsonl":
                    yield from _read_lines(file, name)
                case "json":
                    yield from _read_json(file, name)
                case "csv":
                    yield from _read_csv(file, name)
                case _ if passages:
                    yield from _read_passages(file, name, passages)
                case _:
                    yield Item(name, 1, _decode(file.read(), name, 1))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(f"{name}: the compressed file is truncated or corrupt ({error}).") from error
    except OSError as error:
        raise DatasetError(f"{name} cannot be read ({error.strerror or error}).") from error


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1][1:] if suffixes else ""


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _decode(data: bytes, name: str, first_line: int) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = first_line + data[: error.start].count(b"\n")
        raise DatasetError(
            f"{name}:{line}: byte 0x{data[error.start]:02x} is not UTF-8.",
            next_step="Convert the file to UTF-8, for example with iconv.",
        ) from error


def _read_lines(file: BinaryIO, name: str) -> Iterator[Item]:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield Item(name, number, line)


def _read_json(file: BinaryIO, name: str) -> Iterator[Item]:
    try:
        value = json.loads(file.read())
    except ValueError as error:
        raise DatasetError(f"{name}: not JSON ({error}).") from error
    rows = value if isinstance(value, list) else [value]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DatasetError(f"{name}: element {number} is {type(row).__name__}; a row is a JSON object.")
        yield Item(name, number, row)


def _read_csv(file: BinaryIO, name: str) -> Iterator[Item]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(text, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise DatasetError(
                    f"{name}:{reader.line_num}: the number of fields differs from the header's.",
                    allowed=f"The header has {len(reader.fieldnames or ())}: {', '.join(reader.fieldnames or ())}.",
                )
            yield Item(name, reader.line_num, dict(row))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{name}:{reader.line_num + 1}: {error}.") from error


def _read_passages(file: BinaryIO, name: str, limit: int) -> Iterator[Item]:
    first_line, size, lines = 1, 0, list[str]()
    for number, raw in enumerate(file, 1):
        line = _decode(raw, name, number)
        for start in range(0, len(line), limit):  # a line longer than a passage is cut
            piece = line[start : start + limit]
            if size + len(piece) > limit:
                yield Item(name, first_line, "".join(lines))
                first_line, size, lines = number, 0, []
            lines.append(piece)
            size += len(piece)
    if lines:
        yield Item(name, first_line, "".join(lines))
