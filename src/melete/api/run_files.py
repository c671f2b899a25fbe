"""Files of a run that may be seen: by kind and by place, never outside its folder, never a hidden one.

Allowed are plain files with a suffix of `TYPES`, at the top of the folder or below one of `FOLDERS`. A link is
followed only while it stays inside the folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from melete.api.clean import text
from melete.api.records import RunFile

TYPES = {
    "csv": "text/csv",
    "gif": "image/gif",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "md": "text/markdown",
    "mp4": "video/mp4",
    "parquet": "application/vnd.apache.parquet",
    "patch": "text/x-diff",
    "png": "image/png",
    "safetensors": "application/octet-stream",
    "txt": "text/plain",
    "webm": "video/webm",
    "webp": "image/webp",
    "yaml": "application/yaml",
}
FOLDERS = ("checkpoints", "data", "evaluation", "export", "handover", "samples", "traces")
NAME = re.compile(r"[^./\x00-\x1f][^/\x00-\x1f]*")
MOST_FILES = 20_000
"""Looked at in one folder of a run; what comes after them is not listed, and can be asked for by name."""


def media_type(path: str) -> str | None:
    """The media type of a file by its suffix; None where such files are not shown."""
    return TYPES.get(path.rpartition(".")[2].lower()) if "." in path else None


def allowed(path: str) -> bool:
    """Whether a path below a run's folder is of a kind and in a place that may be seen."""
    parts = path.split("/")
    plain = all(NAME.fullmatch(part) for part in parts)
    return plain and media_type(path) is not None and (len(parts) == 1 or parts[0] in FOLDERS)


def located(run: Path, path: str) -> Path | None:
    """The file of a path below a run's folder; None if there is none that may be seen."""
    if not allowed(path):
        return None
    try:
        root, found = run.resolve(), (run / path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None
    return found if found.is_file() and found.is_relative_to(root) else None


def listed(run: Path) -> Iterator[RunFile]:
    """The files that may be seen, links left out."""
    for folder in ("", *FOLDERS):
        for seen, entry in enumerate(_entries(run / folder, deep=bool(folder))):
            if seen == MOST_FILES:
                break
            path = os.path.relpath(entry.path, run)
            if allowed(path):
                yield described(path, entry.stat(follow_symlinks=False))


def described(path: str, stat: os.stat_result) -> RunFile:
    """What is said of a file that may be seen."""
    kind = media_type(path)
    assert kind is not None
    return RunFile(path=text(path), bytes=stat.st_size, modified_s=stat.st_mtime, media_type=kind)


def _entries(folder: Path, deep: bool) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_file(follow_symlinks=False):
            yield entry
        elif deep and entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _entries(Path(entry.path), deep)
