"""Adding own data as a named dataset: read once in full, copied into the home folder, written whole and then renamed.

A version is never overwritten. Without a version given, the next whole number is taken; the same content added again is
an error that names the version that has it already.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from itertools import count
from pathlib import Path

from melete import find
from melete.datasets import own, readers, registry
from melete.datasets.manifest import FileEntry, Manifest, Source
from melete.errors import DatasetError, StorageError
from melete.records import Conversation
from melete.settings import Settings


def add(
    path: Path,
    settings: Settings,
    *,
    name: str | None = None,
    version: str | None = None,
    licence: str = "not stated",
    source: str = "",
    description: str | None = None,
) -> Manifest:
    """Copies a folder or file into `<home>/datasets/<name>/<version>` with its manifest, and returns that.

    Raises:
        DatasetError: a row cannot be read (file and line are named), the name belongs to a known set, the version
            exists, or the same content was added before.
        StorageError: the disk is full or the home folder cannot be written; nothing half-written is left.
    """
    if not path.exists():
        raise DatasetError(f"There is no file or folder {path}.", next_step="Check the path.")
    if name is not None and name != own.slug(name):
        raise DatasetError(
            f"{name!r} is not a dataset name.", next_step=f"Use {own.slug(name)!r}, for example."
        )
    found = own.manifest_of(path, settings, name=name)
    chosen = _free_version(found, version, settings)
    entries = [_read_whole(own.folder_of(path), entry, found.kind) for entry in found.files]
    manifest = found.model_copy(
        update={
            "version": chosen,
            "licence": licence,
            "sources": [Source(repository=source)] if source else [],
            "description": description or found.description,
            "files": entries,
        }
    )
    _write(manifest, own.folder_of(path), settings.datasets / manifest.name)
    return manifest


def _free_version(manifest: Manifest, version: str | None, settings: Settings) -> str:
    name = manifest.name
    if name in {*find.names(registry.GENERATED), *find.names(registry.KNOWN, ".yaml")}:
        raise DatasetError(f"{name} is the name of a known dataset.", next_step="Choose another with --name.")
    taken = registry.added(settings).get(name, {})
    for other in taken:
        if registry.describe(f"{name}@{other}", settings).fingerprint == manifest.fingerprint:
            raise DatasetError(f"The same content is already there as {name}@{other}.")
    if version in taken:
        raise DatasetError(
            f"{name}@{version} exists, and a version is never overwritten.",
            allowed=f"Versions: {', '.join(sorted(taken, key=registry.version_key))}.",
            next_step="Give another --version, or none: then the next number is taken.",
        )
    return version or next(str(number) for number in count(1) if str(number) not in taken)


def _read_whole(folder: Path, entry: FileEntry, kind: str) -> FileEntry:
    """Reads every row once, so that a bad one is found now and not in the middle of a training run."""
    path = folder / entry.path
    rows = 0
    for item in readers.read(path, name=entry.path):
        rows += 1
        if kind == "text":
            item.text()
        elif kind == "conversations":
            try:
                Conversation.from_openai(item.row())
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DatasetError(f"{item.where}: not a conversation: {error}.") from error
        else:
            item.row()
    return entry.model_copy(update={"rows": rows}) if readers.is_rows(path) else entry


def _write(manifest: Manifest, source: Path, parent: Path) -> None:
    temporary = parent / f".tmp-{manifest.version}-{os.getpid()}"
    try:
        for entry in manifest.files:
            target = temporary / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / entry.path, target)
        text = json.dumps(manifest.model_dump(), indent=1, ensure_ascii=False)
        (temporary / registry.MANIFEST_FILE).write_text(text, encoding="utf-8")
        os.rename(temporary, parent / manifest.version)
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "The disk is full" if full else f"Cannot write ({error.strerror})"
        raise StorageError(
            f"{reason}: {manifest.id} was not added to {parent}.",
            next_step="Free some space or set MELETE_HOME to another folder, then add it again.",
        ) from error
