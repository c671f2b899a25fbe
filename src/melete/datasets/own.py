"""A dataset made on the spot from a folder or a file of the user's own.

The kind is read off the first row: `messages` makes it conversations, `text` makes it text, anything else rows. In a
folder, JSON lines come first, then text and source files, then CSV; what is not used is said in the manifest. Files or
folders named train and val (or valid, validation, dev), and test, are the splits; else `val` is drawn from the rest.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from melete.datasets import readers, verified
from melete.datasets.manifest import FileEntry, Kind, Manifest
from melete.errors import DatasetError
from melete.settings import Settings

SKIPPED_FOLDERS = {"node_modules", "__pycache__", "venv", "site-packages"}
SPLIT_OF = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
SNIFFED_BYTES = 4096


def manifest_of(
    path: Path, settings: Settings, *, name: str | None = None, version: str | None = None
) -> Manifest:
    """Describes a folder or a file; its files are hashed.

    Args:
        path: a folder, or a .txt, .md, .jsonl, .json, .csv or source file, gzipped or not.
        settings: where checksums are remembered.
        name: name of the dataset, made from the path by default.
        version: version, the first characters of the fingerprint by default.

    Raises:
        DatasetError: nothing readable is there, or the files hold different kinds of data.
    """
    folder, files, unused = _select(path)
    kinds = {file: _kind(file, file.relative_to(folder).as_posix()) for file in files}
    if len(set(kinds.values())) > 1:
        shown = {kind: file.relative_to(folder) for file, kind in kinds.items()}
        raise DatasetError(
            f"{path} mixes kinds of data: " + ", ".join(f"{f} is {k}" for k, f in shown.items()) + ".",
            next_step="Put each kind in a folder of its own.",
        )
    relative = [file.relative_to(folder).as_posix() for file in files]
    entries = [
        FileEntry(path=name, bytes=file.stat().st_size, sha256=digest)
        for name, file, digest in zip(relative, files, verified.digests(files, settings), strict=True)
    ]
    splits = _splits(relative)
    manifest = Manifest(
        name=name or slug(path.name),
        version=version or "0",
        kind=kinds[files[0]],
        description=f"Own data from {path.name}.",
        licence="not stated",
        splits=splits,
        drawn_val=set(splits) == {"train"},
        known_issues=[f"{unused} other file(s) of the folder are not part of the set."] if unused else [],
        files=entries,
    )
    return manifest.model_copy(update={"version": version or manifest.fingerprint[:12]})


def folder_of(path: Path) -> Path:
    """Folder that the paths in the manifest of `path` are relative to."""
    return path if path.is_dir() else path.parent


def slug(name: str) -> str:
    """A dataset name made from a file or folder name."""
    stem = re.sub(r"\.(gz|jsonl|json|csv|txt|md)$", "", re.sub(r"\.gz$", "", name.lower()))
    return re.sub(r"[^a-z0-9_-]+", "_", stem).strip("_-") or "own"


def _select(path: Path) -> tuple[Path, list[Path], int]:
    if path.is_file():
        if not readers.is_rows(path) and not _looks_like_text(path):
            raise DatasetError(
                f"{path} is not a text file.",
                allowed="Own data is a folder, or a .txt, .md, .jsonl, .json, .csv or source file, gzipped or not.",
            )
        return path.parent, [path], 0
    everything = sorted(
        file
        for file in path.rglob("*")
        if file.is_file()
        and not any(part.startswith(".") or part in SKIPPED_FOLDERS for part in file.relative_to(path).parts)
    )
    lines = [file for file in everything if file.name.lower().endswith((".jsonl", ".jsonl.gz"))]
    tables = [file for file in everything if file.name.lower().endswith((".csv", ".csv.gz"))]
    texts = [] if lines else [f for f in everything if not readers.is_rows(f) and _looks_like_text(f)]
    chosen = lines or texts or tables
    if not chosen:
        raise DatasetError(
            f"{path} holds no data that can be read ({len(everything)} files).",
            allowed="Text, source code, .jsonl or .csv files, gzipped or not.",
        )
    return path, chosen, len(everything) - len(chosen)


def _looks_like_text(path: Path) -> bool:
    if path.suffix == ".gz":
        return path.with_suffix("").suffix in (".txt", ".md")
    with path.open("rb") as file:
        head = file.read(SNIFFED_BYTES)
    return bool(head) and b"\0" not in head and not head.startswith(b"%PDF")


def _kind(path: Path, name: str) -> Kind:
    if not readers.is_rows(path):
        return "text"
    first = next(islice(readers.read(path, name=name), 1), None)
    if first is None:
        raise DatasetError(f"{path} is empty.")
    row = first.row()
    if "messages" in row:
        return "conversations"
    return "text" if "text" in row else "rows"


def _splits(paths: list[str]) -> dict[str, list[str]]:
    """Splits named by files or folders; all of it is `train` unless both train and val are named."""
    named: dict[str, list[str]] = {}
    for path in paths:
        words = [part.split(".")[0].lower() for part in path.split("/")]
        split = next((SPLIT_OF[word] for word in words if word in SPLIT_OF), "train")
        named.setdefault(split, []).append(path)
    if "train" in named and set(named) & {"val", "test"}:
        return named
    return {"train": paths}
