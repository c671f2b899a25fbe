"""Checkpoints: a folder of safetensors files and one JSON, written whole and then renamed into place.

    runs/<id>/checkpoints/step_00000100/
        checkpoint.json       schema version, kind, step, config, data position, metrics, size and sha256 of each file
        model.safetensors     weights
        state.safetensors     optimizer and RNG state
        tokenizer.json        and other side files that the kind needs

A folder whose name starts with `.tmp-` is a write that was cut short; it is never read and is removed by the next
save. `load` compares sizes and checksums before it hands out a tensor, so a truncated or corrupt file is one clear
error and never a half-loaded model. Only tensors and JSON are read: no pickle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melete.errors import CheckpointError, StorageError
from melete.records import CheckpointRecord

if TYPE_CHECKING:
    import torch

SCHEMA_VERSION = 1


def save(
    parent: Path,
    *,
    kind: str,
    step: int,
    config: dict[str, Any],
    tensors: dict[str, dict[str, torch.Tensor]],
    data_position: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    side_files: dict[str, bytes] | None = None,
) -> Path:
    """Writes `parent/step_XXXXXXXX` and returns it.

    Args:
        parent: the `checkpoints` folder of a run.
        kind: what the checkpoint is, such as `llm`.
        step: optimizer steps done.
        config: what is needed to build the model again.
        tensors: file stem to tensors, such as `{"model": …, "state": …}`.
        data_position: exact position of the data loader.
        metrics: figures known when the checkpoint was written.
        side_files: file name to bytes, such as `tokenizer.json`.

    Raises:
        StorageError: the disk is full or the folder cannot be written; what was there before is untouched.
    """
    name = f"step_{step:08d}"
    temporary = parent / f".tmp-{name}"
    target = parent / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for leftover in parent.glob(".tmp-*"):
            shutil.rmtree(leftover)
        temporary.mkdir()
        files = {}
        contents = {f"{stem}.safetensors": _dump(group) for stem, group in tensors.items()}
        for file, data in {**contents, **(side_files or {})}.items():
            _write(temporary / file, data)
            files[file] = (len(data), hashlib.sha256(data).hexdigest())
        record = CheckpointRecord(
            SCHEMA_VERSION, kind, step, config, data_position or {}, metrics or {}, files
        )
        _write(temporary / "checkpoint.json", json.dumps(dataclasses.asdict(record), indent=1).encode())
        if target.exists():
            shutil.rmtree(target)
        os.rename(temporary, target)
        _sync_folder(parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)
        what = (
            "The disk is full"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else f"Cannot write ({error.strerror})"
        )
        kept = latest(parent)
        raise StorageError(
            f"{what}: checkpoint {name} was not saved in {parent}.",
            allowed=f"The last good checkpoint is {kept.name}." if kept else "No checkpoint exists yet.",
            next_step="Free some space, then continue with: melete runs resume " + parent.parent.name,
        ) from error
    return target


def latest(parent: Path) -> Path | None:
    """The newest whole checkpoint in a `checkpoints` folder, or None."""
    found = sorted(p for p in parent.glob("step_*") if (p / "checkpoint.json").is_file())
    return found[-1] if found else None


def read(folder: Path) -> CheckpointRecord:
    """Reads `checkpoint.json`.

    Raises:
        CheckpointError: it is missing, not JSON, or of a newer schema.
    """
    file = folder / "checkpoint.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        version = values["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} is not a checkpoint: {file.name} cannot be read ({error})."
        ) from error
    if version > SCHEMA_VERSION:
        raise CheckpointError(
            f"{folder} has schema version {version}.",
            allowed=f"This Melete reads up to version {SCHEMA_VERSION}.",
            next_step="Update Melete.",
        )
    values["files"] = {name: (size, digest) for name, (size, digest) in values["files"].items()}
    return CheckpointRecord(**values)


def load(folder: Path, stem: str, device: str | torch.device = "cpu") -> dict[str, torch.Tensor]:
    """Loads the tensors of `stem.safetensors` after its size and checksum were compared.

    Raises:
        CheckpointError: the file is missing, truncated or corrupt.
    """
    from safetensors.torch import load as parse

    tensors = parse(read_file(folder, f"{stem}.safetensors"))
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def read_file(folder: Path, name: str) -> bytes:
    """Bytes of one file of a checkpoint, after its size and checksum were compared.

    Raises:
        CheckpointError: the file is missing, truncated or corrupt.
    """
    record = read(folder)
    if name not in record.files:
        raise CheckpointError(
            f"{folder} has no {name}.", allowed=f"It holds: {', '.join(sorted(record.files))}."
        )
    size, digest = record.files[name]
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{folder / name} cannot be read ({error.strerror}).") from error
    if len(data) == size and hashlib.sha256(data).hexdigest() == digest:
        return data
    what = (
        f"truncated: {len(data):,} of {size:,} bytes" if len(data) < size else "corrupt: its sha256 differs"
    )
    others = [p.name for p in sorted(folder.parent.glob("step_*")) if p != folder]
    raise CheckpointError(
        f"{folder / name} is {what}.",
        allowed=f"Other checkpoints of this run: {', '.join(others)}." if others else None,
        next_step=f"Delete the folder {folder.name} to go back to the one before it." if others else None,
    )


def _dump(tensors: dict[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    return save({name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()})


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
