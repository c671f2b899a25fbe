"""Checksums of data files, computed at first use and remembered by size and modification time.

The memory is `<home>/datasets/.verified.json`. It only saves work: when it is lost, or the home folder cannot be
written, files are hashed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melete.datasets.manifest import FileEntry
from melete.errors import DatasetError
from melete.settings import Settings


def digests(paths: Sequence[Path], settings: Settings) -> list[str]:
    """sha256 of files, from memory where size and modification time are those of the last time.

    Raises:
        DatasetError: a file cannot be read.
    """
    memory, new, found = recall(settings, "verified"), {}, []
    for path in paths:
        try:
            stat = path.stat()
            key, stamp = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
            known = memory.get(key)
            if not isinstance(known, list) or known[:2] != stamp:
                with path.open("rb") as file:
                    known = new[key] = [*stamp, hashlib.file_digest(file, "sha256").hexdigest()]
        except OSError as error:
            raise DatasetError(f"{path} cannot be read ({error.strerror}).") from error
        found.append(str(known[2]))
    if new:
        remember(settings, "verified", new)
    return found


def check(folder: Path, entries: Sequence[FileEntry], dataset: str, settings: Settings) -> list[Path]:
    """Paths of the files, after their sizes and checksums were compared with the manifest's.

    Raises:
        DatasetError: a file is missing, has another size or another checksum.
    """
    paths = [folder / entry.path for entry in entries]
    for path, entry in zip(paths, entries, strict=True):
        if not path.is_file():
            raise DatasetError(
                f"{dataset}: {path} is missing.",
                allowed=f"The manifest lists it with {entry.bytes:,} bytes.",
                next_step="Fetch the dataset again; its source is shown by: melete data card "
                + dataset.split("@")[0],
            )
        if (size := path.stat().st_size) != entry.bytes:
            raise _corrupt(dataset, path, f"{size:,} bytes", f"{entry.bytes:,} bytes")
    for path, entry, digest in zip(paths, entries, digests(paths, settings), strict=True):
        if digest != entry.sha256:
            raise _corrupt(dataset, path, f"sha256 {digest}", f"sha256 {entry.sha256}")
    return paths


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


def remember(settings: Settings, memory: str, values: dict[str, Any]) -> None:
    """Adds to a memory, whole and then renamed; does nothing where the home folder cannot be written."""
    target = settings.datasets / f".{memory}.json"
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({**recall(settings, memory), **values}), encoding="utf-8")
        os.replace(temporary, target)


def _corrupt(dataset: str, path: Path, found: str, expected: str) -> DatasetError:
    return DatasetError(
        f"{dataset}: {path} is corrupt or another version: found {found}, expected {expected}.",
        next_step="Fetch the file again, or add your version under its own name with: melete data add",
    )
