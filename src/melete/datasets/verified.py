"""Checksums of data files, computed at first use and remembered by size and modification time.

The memory is `<home>/datasets/.verified.json`. It only saves work: when it is lost, or the home folder cannot be
written, files are hashed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from melete.datasets.manifest import FileEntry
from melete.errors import DatasetError
from melete.settings import Settings


def sha256(path: Path, settings: Settings) -> str:
    """sha256 of a file, from memory if its size and modification time are those of the last time.

    Raises:
        DatasetError: the file cannot be read.
    """
    try:
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        memory = recall(settings, "verified")
        known = memory.get(str(path.resolve()))
        if isinstance(known, list) and known[:2] == stamp:
            return str(known[2])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}).") from error
    remember(settings, "verified", str(path.resolve()), [*stamp, digest])
    return digest


def check(path: Path, entry: FileEntry, dataset: str, settings: Settings) -> Path:
    """Returns `path` after its size and checksum were compared with the manifest's.

    Raises:
        DatasetError: the file is missing, has another size or another checksum.
    """
    if not path.is_file():
        raise DatasetError(
            f"{dataset}: {path} is missing.",
            allowed=f"The manifest lists it with {entry.bytes:,} bytes.",
            next_step=f"Fetch the dataset again; its source is shown by: melete data card {dataset.split('@')[0]}",
        )
    size = path.stat().st_size
    if size == entry.bytes:
        digest = sha256(path, settings)
        if digest == entry.sha256:
            return path
        found, expected = f"sha256 {digest}", f"sha256 {entry.sha256}"
    else:
        found, expected = f"{size:,} bytes", f"{entry.bytes:,} bytes"
    raise DatasetError(
        f"{dataset}: {path} is corrupt or another version: found {found}, expected {expected}.",
        next_step="Fetch the file again, or add your version under its own name with: melete data add",
    )


def forget(settings: Settings) -> None:
    """Drops the memory of checksums, so that every file is hashed again."""
    with contextlib.suppress(OSError):
        (settings.datasets / ".verified.json").unlink()


def recall(settings: Settings, memory: str) -> dict[str, Any]:
    """One of the small JSON memories in the datasets folder; unreadable reads as empty."""
    try:
        values = json.loads((settings.datasets / f".{memory}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def remember(settings: Settings, memory: str, key: str, value: Any) -> None:
    """Adds to a memory, whole and then renamed; does nothing where the home folder cannot be written."""
    target = settings.datasets / f".{memory}.json"
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({**recall(settings, memory), key: value}), encoding="utf-8")
        os.replace(temporary, target)
