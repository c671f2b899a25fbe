"""Images and episodes in the `.npz` files of a dataset: which arrays there are, and single frames of them as PNG.

An array of bytes with shape (N, H, W, C) holds images; with (E, T, H, W, C), or with `episode_ends` (E,) beside it in
the file, the images are the frames of episodes. Other arrays with as many entries are figures of the episodes, a text
array (E,) their labels. Only headers are read to know that. An array is compressed as a whole, so a frame far inside
costs the reading of all before it; the places where the last reads ended are kept open, for who looks at one after the
other.
"""

from __future__ import annotations

import struct
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from melete.errors import DatasetError, UnknownNameError

Pixels = NDArray[np.uint8]
ENDS = "episode_ends"
COLOURS = {1: 0, 3: 2, 4: 6}
"""PNG's colour type by number of channels."""
SMALLEST, LARGEST = 8, 1_024
"""Height and width of what counts as an image, in pixels."""
MOST_LABELS_BYTES = 50_000_000
HELD = 6
"""Places in files that are kept open."""


@dataclass(frozen=True)
class Array:
    """One array of a file, known by its header."""

    path: Path
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int

    @property
    def is_images(self) -> bool:
        """Whether it holds images, or frames of episodes."""
        if self.dtype != np.uint8 or len(self.shape) not in (4, 5) or self.shape[-1] not in COLOURS:
            return False
        return all(SMALLEST <= side <= LARGEST for side in self.shape[-3:-1]) and prod(self.shape) > 0


@dataclass(frozen=True)
class Frames:
    """The images of a dataset, in order; `ends` are the ends of its episodes, none where they are just images.

    Attributes:
        array: where they are.
        ends: of episodes, as numbers of frames from the beginning.
        others: arrays with one entry per frame or per episode.
    """

    array: Array
    ends: tuple[int, ...]
    others: tuple[Array, ...]

    @cached_property
    def count(self) -> int:
        """Number of images."""
        return prod(self.array.shape[:-3])

    def span(self, episode: int) -> tuple[int, int]:
        """First frame of an episode and the one after its last.

        Raises:
            UnknownNameError: there is no such episode.
        """
        if not 0 <= episode < len(self.ends):
            raise UnknownNameError(
                "episode", str(episode), [f"0 to {len(self.ends) - 1}"] if self.ends else []
            )
        return (self.ends[episode - 1] if episode else 0), self.ends[episode]


def find(paths: Sequence[Path]) -> Frames | None:
    """The images in some files; None where there are none.

    Raises:
        DatasetError: a file is no `.npz` file.
    """
    arrays = [one for path in paths for one in _arrays(path, path.stat().st_mtime_ns)]
    images = next((one for one in arrays if one.is_images), None)
    if images is None:
        return None
    ends: tuple[int, ...] = ()
    if len(images.shape) == 5:
        ends = tuple(range(images.shape[1], prod(images.shape[:2]) + 1, images.shape[1]))
    else:
        beside = [one for one in arrays if one.name == ENDS and one.path == images.path]
        ends = tuple(int(end) for end in whole(beside[0])) if beside else ()
        if list(ends) != sorted(set(ends)) or (ends and not 0 < ends[-1] <= images.shape[0]):
            raise DatasetError(f"{images.path.name}: {ENDS} does not fit {images.name}.")
    others = tuple(one for one in arrays if not one.is_images and one.name != ENDS)
    return Frames(images, ends, others)


@lru_cache(64)
def _arrays(path: Path, _: int) -> tuple[Array, ...]:
    found = []
    try:
        with zipfile.ZipFile(path) as opened:
            for name in opened.namelist():
                if not name.endswith(".npy"):
                    continue
                with opened.open(name) as member:
                    version = npy.read_magic(member)
                    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                    shape, fortran, dtype = read(member)
                    if not fortran and not dtype.hasobject:
                        found.append(Array(path, name.removesuffix(".npy"), dtype, shape, member.tell()))
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(f"{path.name} cannot be read ({error}).") from error
    return tuple(found)


def whole(array: Array) -> NDArray[Any]:
    """All of a small array.

    Raises:
        DatasetError: it is not small.
    """
    if array.dtype.itemsize * prod(array.shape) > MOST_LABELS_BYTES:
        raise DatasetError(f"{array.name} of {array.path.name} is too large to be read at once.")
    with zipfile.ZipFile(array.path) as opened, opened.open(f"{array.name}.npy") as member:
        found: NDArray[Any] = npy.read_array(member, allow_pickle=False)
        return found


class FrameReader:
    """Reads frames, and goes on where it was before."""

    def __init__(self) -> None:
        self._held: OrderedDict[Path, tuple[str, IO[bytes]]] = OrderedDict()
        self._lock = threading.Lock()

    def frames(self, array: Array, indices: Sequence[int]) -> list[Pixels]:
        """Images by their numbers, which rise; each (H, W, C).

        Raises:
            DatasetError: the file is torn.
        """
        shape = array.shape[-3:]
        size = prod(shape)
        with self._lock:
            member = self._at(array, array.start + indices[0] * size)
            found = []
            try:
                for index in indices:
                    member.seek(array.start + index * size)
                    found.append(np.frombuffer(member.read(size), np.uint8).reshape(shape))
            except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
                self._held.pop(array.path, None)
                raise DatasetError(f"{array.path.name} cannot be read ({error}).") from error
            return found

    def _at(self, array: Array, place: int) -> IO[bytes]:
        held = self._held.pop(array.path, None)
        if held is None or held[0] != array.name or held[1].tell() > place:
            if held is not None:
                held[1].close()
            archive = zipfile.ZipFile(array.path)
            held = (array.name, archive.open(f"{array.name}.npy"))
        self._held[array.path] = held
        while len(self._held) > HELD:
            self._held.popitem(last=False)[1][1].close()
        return held[1]


def strip(frames: Sequence[Pixels]) -> Pixels:
    """Frames side by side."""
    return np.concatenate(frames, axis=1)


def png(pixels: Pixels) -> bytes:
    """A PNG file of an image (H, W, C) with 1, 3 or 4 channels (PNG specification, third edition, 2025)."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, COLOURS[channels], 0, 0, 0)
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
