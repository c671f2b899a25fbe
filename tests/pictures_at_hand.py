"""Datasets of images and of episodes for tests: small arrays with known colours, captions, actions of each step."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from melete.settings import Settings

SIDE = 16
IMAGES = 60
LENGTHS = (5, 1, 12)
"""Steps of the episodes."""


def colour(index: int) -> tuple[int, int, int, int]:
    """The colour of an image."""
    return index, 255 - index, 7, 255


def add_dataset(settings: Settings, name: str, files: dict[str, bytes], **values: Any) -> Path:
    """Writes a dataset of the user's own with its manifest."""
    folder = settings.datasets / name / "1"
    folder.mkdir(parents=True)
    entries = []
    for path, data in files.items():
        (folder / path).write_bytes(data)
        entries.append({"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        if path.endswith(".jsonl"):
            entries[-1]["rows"] = data.count(b"\n")
    told = {"name": name, "version": "1", "description": f"For tests: {name}.", "licence": "CC0-1.0"}
    manifest = {**told, "kind": "files", "files": entries, **values}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def arrays(folder: Path, **given: Any) -> bytes:
    """The bytes of an `.npz` file."""
    file = folder / "made.npz"
    np.savez_compressed(file, **given)
    return file.read_bytes()


def add_pictures(settings: Settings, folder: Path, caption: str = "number {}") -> None:
    """`pictures`: images of one colour each, with captions."""
    pixels = np.zeros((IMAGES, SIDE, SIDE, 4), np.uint8)
    for index in range(IMAGES):
        pixels[index] = colour(index)
    rows = "".join(json.dumps({"i": n, "caption": caption.format(n)}) + "\n" for n in range(IMAGES))
    files = {"captions.jsonl": rows.encode(), "pictures.npz": arrays(folder, rgba=pixels)}
    add_dataset(settings, "pictures", files, splits={"captions": ["captions.jsonl"]})


def add_episodes(settings: Settings, folder: Path) -> None:
    """`moves`: three episodes of frames, whose action counts from the first to the last step of all."""
    total = sum(LENGTHS)
    frames = np.zeros((total, SIDE, SIDE, 3), np.uint8)
    frames[:, :, :, 0] = np.arange(total, dtype=np.uint8)[:, None, None]
    data = arrays(
        folder,
        img=frames,
        episode_ends=np.cumsum(LENGTHS),
        action=np.arange(total * 2, dtype=np.float32).reshape(total, 2),
        task=np.array(["push", "pull", "<script>alert(1)</script>"]),
    )
    add_dataset(settings, "moves", {"moves.npz": data})
