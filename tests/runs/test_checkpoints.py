"""Checkpoints: written whole or not at all, and never half-read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melete.errors import CheckpointError, StorageError
from melete.runs import checkpoints

torch = pytest.importorskip("torch")


def save(parent: Path, step: int = 1, size: int = 4, **parts: Any) -> Path:
    tensors = {"model": {"w": torch.arange(size, dtype=torch.float32)}}
    return checkpoints.save(parent, kind="trial", step=step, config={"a": 1}, tensors=tensors, **parts)


def test_saved_tensors_config_and_position_come_back(tmp_path: Path) -> None:
    folder = save(tmp_path, data_position={"shard": 3}, metrics={"loss": 1.5}, side_files={"t.json": b"{}"})
    record = checkpoints.read(folder)
    assert (record.kind, record.step, record.config) == ("trial", 1, {"a": 1})
    assert (record.data_position, record.metrics) == ({"shard": 3}, {"loss": 1.5})
    assert checkpoints.load(folder, "model")["w"].tolist() == [0, 1, 2, 3]
    assert checkpoints.read_file(folder, "t.json") == b"{}"


def test_views_and_slices_are_saved_as_what_they_show(tmp_path: Path) -> None:
    whole = torch.arange(6.0).view(2, 3)
    folder = checkpoints.save(
        tmp_path, kind="trial", step=1, config={}, tensors={"model": {"t": whole.T, "row": whole[1]}}
    )
    loaded = checkpoints.load(folder, "model")
    assert loaded["t"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert loaded["row"].tolist() == [3, 4, 5]


def test_save_of_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, size=4)
    assert checkpoints.load(save(tmp_path, size=2), "model")["w"].tolist() == [0, 1]


def test_truncated_file_is_an_error_that_names_the_others(tmp_path: Path) -> None:
    save(tmp_path, step=1)
    folder = save(tmp_path, step=2)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"truncated: (.|\n)*step_00000001"):
        checkpoints.load(folder, "model")


def test_changed_byte_is_an_error(tmp_path: Path) -> None:
    folder = save(tmp_path)
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="corrupt: its sha256 differs"):
        checkpoints.load(folder, "model")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 1}'])
def test_record_that_cannot_be_read_is_an_error(tmp_path: Path, text: str) -> None:
    folder = save(tmp_path)
    (folder / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        checkpoints.read(folder)


def test_record_of_a_newer_schema_says_to_update(tmp_path: Path) -> None:
    folder = save(tmp_path)
    file = folder / "checkpoint.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 99}))
    with pytest.raises(CheckpointError, match="schema version 99"):
        checkpoints.read(folder)


def test_file_that_a_checkpoint_does_not_have_lists_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"It holds: model\.safetensors"):
        checkpoints.load(save(tmp_path), "state")


def test_full_disk_keeps_the_checkpoint_before_and_leaves_nothing_half_written(
    small_disk: Callable[[int], Path],
) -> None:
    parent = small_disk(1_000_000) / "run" / "checkpoints"
    kept = save(parent, step=1, size=50_000)
    with pytest.raises(
        StorageError, match=r"The disk is full(.|\n)*last good checkpoint is step_00000001"
    ) as caught:
        save(parent, step=2, size=400_000)
    assert "melete runs resume run" in str(caught.value)
    assert [path.name for path in parent.iterdir()] == ["step_00000001"]
    assert checkpoints.load(kept, "model")["w"].shape == (50_000,)


def test_kill_while_saving_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """The child is killed as soon as the half-written folder is seen; the next save clears it away."""
    save(tmp_path, step=1)
    program = (
        "from pathlib import Path\nfrom melete.runs import checkpoints\nfiles = {'model': bytes(20_000_000)}\n"
        "while True:\n"
        f"    checkpoints.save(Path({str(tmp_path)!r}), kind='trial', step=2, "
        "config={}, tensors={}, side_files=files)"
    )
    child = subprocess.Popen([sys.executable, "-c", program])
    while not list(tmp_path.glob(".tmp-*/model")):
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    newest = checkpoints.latest(tmp_path)
    assert newest is not None
    for name in checkpoints.read(newest).files:
        checkpoints.read_file(newest, name)
    save(tmp_path, step=3)
    assert not list(tmp_path.glob(".tmp-*"))
