"""Exports of a report: one file a format, found by name. Each has `SUFFIX` and `render(report) -> bytes`.

What they write comes from the report alone, so that no export can hold what the report does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from melete import find
from melete.errors import MissingExtraError
from melete.runs.folder import replace_file, storage_error


def names() -> list[str]:
    """Names of all formats."""
    return find.names("melete.bench.exports")


def suffix(name: str) -> str:
    """File ending of a format, such as `.html`.

    Raises:
        UnknownNameError: no such format.
    """
    ending: str = find.load("melete.bench.exports", name, "format").SUFFIX
    return ending


def write(name: str, report: dict[str, Any], path: Path) -> Path:
    """Writes a report in a format; whole or not at all.

    Raises:
        UnknownNameError: no such format.
        MissingExtraError: the format needs a library that is not installed.
        StorageError: the file cannot be written.
    """
    format = find.load("melete.bench.exports", name, "format")
    try:
        written: bytes = format.render(report)
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library not in find.EXTRA_OF:
            raise
        raise MissingExtraError(library, find.EXTRA_OF[library]) from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    replace_file(path, written)
    return path
