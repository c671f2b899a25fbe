"""The images and episodes of datasets: lists, single images, strips of frames, and images that rows carry."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Annotated, Any

import numpy as np
from fastapi import Path as InPath
from pydantic import Field
from starlette.responses import Response

from melete.api import frames, paging
from melete.api.clean import clean, text
from melete.api.frames import FrameReader, Frames
from melete.api.records import (
    DatasetDetail,
    DatasetEpisode,
    DatasetEpisodeDetail,
    EpisodeFigure,
)
from melete.api.run_files import TYPES
from melete.api.run_parts.files import SAFE
from melete.api.store import Asked, Listed, Text
from melete.datasets.dataset import Dataset
from melete.errors import DatasetError, UnknownNameError

STRIP = 8
"""Frames of a strip at most."""
MOST_POINTS = 400
MOST_FIGURES = 24
LARGEST_BYTES = 10_000_000
"""Of an image that a row carries."""
Index = Annotated[int, InPath(ge=0, lt=10**9, description="From 0.", examples=[0])]


class ImageAsked(Asked):
    """Which images."""

    search: Text | None = Field(
        None, min_length=1, description="Only those whose caption has this text.", examples=["a red square"]
    )
    start: int = Field(0, ge=0, lt=10**9, description="Number of the first, where there is no cursor.")


def images_of(opened: Dataset | None) -> Frames | None:
    """The images of a dataset that is at hand."""
    if opened is None or opened.manifest.kind != "files":
        return None
    names = [entry.path for entry in opened.manifest.files if entry.path.endswith(".npz")]
    return frames.find([opened.path(name) for name in names])


def needed(opened: Dataset) -> Frames:
    """The images of a dataset.

    Raises:
        DatasetError: it has none.
    """
    found = images_of(opened)
    if found is None:
        raise DatasetError(
            f"{opened.manifest.id} holds no images.", next_step="Its items are at /datasets/{id}/rows."
        )
    return found


def captions_of(opened: Dataset, found: Frames) -> str | None:
    """The split whose items are the captions of the images: it has as many."""
    for split, files in opened.manifest.splits.items():
        if sum(opened.manifest.entry(file).rows or 0 for file in files) == found.count:
            return split
    return None


def caption(row: dict[str, Any] | None, said: str | None) -> str | None:
    """What a row says of its image."""
    values = row or {}
    found = next((values[key] for key in ("caption", "text", "label", "name") if values.get(key)), said)
    return None if found is None else text(str(found), 1_000)


def path_of(name: str, index: int) -> str:
    """Where an image is, below /api/v1."""
    return f"/datasets/{name}/images/{index}"


def image(reader: FrameReader, found: Frames, index: int) -> Response:
    """One image as PNG.

    Raises:
        UnknownNameError: there are fewer.
    """
    if index >= found.count:
        raise UnknownNameError("image", str(index), [f"0 to {found.count - 1}"])
    return _png(reader.frames(found.array, [index])[0])


def film(reader: FrameReader, found: Frames, episode: int) -> Response:
    """Some frames of an episode side by side."""
    first, end = found.span(episode)
    chosen = np.linspace(first, end - 1, min(STRIP, end - first)).astype(int).tolist()
    return _png(frames.strip(reader.frames(found.array, list(dict.fromkeys(chosen)))))


def episodes(name: str, found: Frames, asked: Asked) -> Listed[DatasetEpisode]:
    """A page of episodes in order."""
    of = f"episodes {name}"
    start = paging.place(asked.cursor, of, int) or 0
    labels = _labels(found)
    end = min(start + asked.limit, len(found.ends))
    data = [_episode(name, found, index, labels) for index in range(start, end)]
    more = paging.cursor_at(end, of) if end < len(found.ends) else None
    return Listed[DatasetEpisode](object="list", data=data, next_cursor=more)


def episode(name: str, found: Frames, index: int) -> DatasetEpisodeDetail:
    """One episode with its figures, thinned to a few hundred steps."""
    first, end = found.span(index)
    every = math.ceil((end - first) / MOST_POINTS)
    figures: list[EpisodeFigure] = []
    for array in found.others:
        if array.dtype.kind not in "fiu":
            continue
        if not _of_frames(array.shape, found):
            continue
        values = frames.whole(array).reshape(found.count, -1)[first:end:every]
        for column in range(values.shape[1]):
            key = array.name if values.shape[1] == 1 else f"{array.name}.{column}"
            figures.append(EpisodeFigure(key=key, values=clean(values[:, column].astype(float).tolist())))
    told = _episode(name, found, index, _labels(found)).model_dump()
    return DatasetEpisodeDetail(**told, every=every, figures=figures[:MOST_FIGURES])


def carried(opened: Dataset, row: dict[str, Any], field: str) -> Response:
    """An image that a row carries in a field: the path of a file of the set, or a `data:` URL.

    Raises:
        UnknownNameError: the row has no such field.
        DatasetError: what it holds is no image, or too large.
    """
    value: Any = row
    for part in field.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UnknownNameError("field of this row", field, list(row))
        value = value[part]
    kind, data = _bytes_of(opened, value) if isinstance(value, str) else (None, b"")
    if kind is None or not kind.startswith("image/"):
        raise DatasetError(
            f"{field} holds no image.", allowed="A file of the set, or a data: URL of an image."
        )
    return Response(data, media_type=kind, headers=SAFE)


def detail(told: dict[str, Any], opened: Dataset | None) -> DatasetDetail:
    """A dataset with how many images and episodes it holds."""
    found = images_of(opened)
    counts = {"images": found.count if found else 0, "episodes": len(found.ends) if found else 0}
    return DatasetDetail.model_validate({**told, **counts})


def _bytes_of(opened: Dataset, value: str) -> tuple[str | None, bytes]:
    if value.startswith("data:"):
        head, _, body = value[5:].partition(",")
        if len(body) > LARGEST_BYTES * 4 // 3 or not head.endswith(";base64"):
            return None, b""
        try:
            return head.removesuffix(";base64"), base64.b64decode(body, validate=True)
        except (ValueError, binascii.Error):
            return None, b""
    if value not in {entry.path for entry in opened.manifest.files}:
        return None, b""
    file = opened.path(value)
    if file.stat().st_size > LARGEST_BYTES:
        raise DatasetError(f"{value} is larger than {LARGEST_BYTES:,} bytes.")
    return TYPES.get(file.suffix[1:].lower()), file.read_bytes()


def _of_frames(shape: tuple[int, ...], found: Frames) -> bool:
    """Whether an array has one entry per frame, counted from the beginning or within episodes."""
    return any(len(shape) >= lead and math.prod(shape[:lead]) == found.count for lead in (1, 2))


def _labels(found: Frames) -> list[str]:
    """The text that belongs to each episode, where the set has such an array."""
    for array in found.others:
        if array.dtype.kind == "U" and array.shape == (len(found.ends),):
            return [str(one) for one in frames.whole(array)]
    return []


def _episode(name: str, found: Frames, index: int, labels: list[str]) -> DatasetEpisode:
    first, end = found.span(index)
    return DatasetEpisode(
        index=index,
        label=text(labels[index], 500) if labels else None,
        steps=end - first,
        first=first,
        strip=f"/datasets/{name}/episodes/{index}/strip",
    )


def _png(pixels: frames.Pixels) -> Response:
    return Response(frames.png(pixels), media_type="image/png")
