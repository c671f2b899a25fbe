"""A dataset that can be read: splits made of shards, each streamed in order from any position.

A split with files of its own is read as it is. Where a set has no validation split, about 2 % of its items are drawn
for `val` by a hash of their content, so that the choice does not depend on order and equal items never fall on both
sides. Text in fewer than 50 documents (a single long file) is cut into passages first, so that there
is something to draw.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from melete.datasets import readers, verified
from melete.datasets.manifest import Manifest
from melete.datasets.readers import Item
from melete.errors import DatasetError
from melete.records import Conversation
from melete.settings import Settings

VAL_FRACTION = 0.02
FEW_DOCUMENTS = 50
PASSAGES = 200  # so many are wanted of a text in few documents

Converse = Callable[[dict[str, Any]], Conversation | None]
"""Reads a row as a conversation; None where the row holds none."""
MakeConverse = Callable[[Callable[[str], Path]], Converse]
"""Given a function that locates a file of the set, gives the function that reads a row as a conversation."""


@dataclass(frozen=True)
class Shard:
    """A part of a split, read in order; `read(start)` yields its items from the index `start`."""

    name: str
    kind: str
    read: Callable[[int], Iterator[Item]]
    converse: Converse | None = None

    def documents(self, start: int = 0) -> Iterator[str]:
        """Text documents from the index `start`.

        Raises:
            DatasetError: the set is not text, or a row is malformed (file and line are named).
        """
        if self.kind != "text":
            raise _wrong_kind(self.name, self.kind, "text")
        for item in self.read(start):
            yield item.text()

    def rows(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Rows from the index `start`, as they lie in the files.

        Raises:
            DatasetError: a row is malformed (file and line are named).
        """
        for item in self.read(start):
            yield item.row()

    def conversations(self, start: int = 0) -> Iterator[Conversation]:
        """Conversations from the index `start`; rows of a public set that hold none are not counted.

        Raises:
            DatasetError: the set has no conversations, or a row is malformed (file and line are named).
        """
        if self.kind != "conversations":
            raise _wrong_kind(self.name, self.kind, "conversations")
        if self.converse is None:
            return self._converted(start)
        return itertools.islice(self._converted(0), start, None)

    def _converted(self, start: int) -> Iterator[Conversation]:
        for item in self.read(start):
            row = item.row()
            try:
                conversation = self.converse(row) if self.converse else Conversation.from_openai(row)
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
                raise DatasetError(
                    f"{item.where}: not a conversation: {what}.",
                    allowed='A row is {"messages": [{"role": …, "content": …}, …], "tools": […]}.',
                ) from error
            if conversation is not None:
                yield conversation


@dataclass(frozen=True)
class Dataset:
    """An opened dataset; build one with `melete.datasets.open`.

    Attributes:
        manifest: what is known about it.
        fingerprint: sha256 that identifies its content.
        make_shards: split name to a function that checks the files of the split and lists its shards.
        locate: checks one file of the manifest and gives its path.
        counts: items per split, where they are known.
    """

    manifest: Manifest
    fingerprint: str
    make_shards: Mapping[str, Callable[[], list[Shard]]]
    locate: Callable[[str], Path]
    counts: Callable[[str], int | None]

    @property
    def name(self) -> str:
        """Name without the version."""
        return self.manifest.name

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self.make_shards)

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split, after the checksums of their files were compared.

        Raises:
            DatasetError: no such split, or one of its files is missing or corrupt.
        """
        if split not in self.make_shards:
            raise DatasetError(
                f"{self.manifest.id} has no split {split!r}.", allowed=f"Splits: {', '.join(self.splits)}."
            )
        return self.make_shards[split]()

    def documents(self, split: str) -> Iterator[str]:
        """All text documents of a split, in order; an empty split is a DatasetError."""
        return self._every(split, Shard.documents)

    def rows(self, split: str) -> Iterator[dict[str, Any]]:
        """All rows of a split, as they lie in the files; an empty split is a DatasetError."""
        return self._every(split, Shard.rows)

    def conversations(self, split: str) -> Iterator[Conversation]:
        """All conversations of a split, in order; an empty split is a DatasetError."""
        return self._every(split, Shard.conversations)

    def count(self, split: str) -> int:
        """Number of documents, conversations or rows in a split."""
        if self.manifest.adapter is not None:
            return sum(1 for shard in self.shards(split) for _ in shard.conversations())
        known = self.counts(split) if split in self.make_shards else None
        if known is not None:
            return known
        return sum(1 for shard in self.shards(split) for _ in shard.read(0))

    def path(self, file: str) -> Path:
        """Path of one of its files, after its checksum was compared.

        Raises:
            DatasetError: the set has no such file, or it is missing or corrupt.
        """
        return self.locate(file)

    def _every(self, split: str, items: Callable[[Shard], Iterator[Any]]) -> Iterator[Any]:
        empty = True
        for shard in self.shards(split):
            for item in items(shard):
                empty = False
                yield item
        if empty:
            raise DatasetError(f"The split {split!r} of {self.manifest.id} is empty.")


@dataclass(frozen=True)
class Draw:
    """How `val` is drawn from `train`: items whose hash is below `threshold`; counts of both sides."""

    threshold: float
    passages: int
    train: int
    val: int


def from_files(
    manifest: Manifest, folder: Path, settings: Settings, adapter: MakeConverse | None = None
) -> Dataset:
    """A dataset whose files lie in `folder`; they are checked when a split is first read."""
    drawn_splits = {"train", "val"} if manifest.drawn_val else set()
    splits = [*manifest.splits, *(["val"] if manifest.drawn_val else [])]
    entries = {entry.path: entry for entry in manifest.files}

    def locate(file: str) -> Path:
        return verified.check(folder, [manifest.entry(file)], manifest.id, settings)[0]

    def files(split: str) -> list[tuple[str, Path]]:
        listed = [entries[path] for path in manifest.splits[split]]
        paths = verified.check(folder, listed, manifest.id, settings)
        return list(zip(manifest.splits[split], paths, strict=True))

    def drawn() -> Draw:
        return _draw(manifest, files("train"), settings)

    def make(split: str) -> list[Shard]:
        part = split if split in drawn_splits else ""
        paths = files("train" if part else split)
        draw = drawn() if part else Draw(0.0, 0, 0, 0)
        converse = adapter(locate) if adapter else None
        groups = [[pair] for pair in paths if readers.is_rows(pair[1])]
        texts = [pair for pair in paths if not readers.is_rows(pair[1])]
        return [
            Shard(
                f"{manifest.id}/{group[0][0]}",
                manifest.kind,
                partial(_read, group, draw, part),
                converse,
            )
            for group in [*groups, *([texts] if texts else [])]
        ]

    def count(split: str) -> int | None:
        if split in drawn_splits:
            draw = drawn()
            return draw.val if split == "val" else draw.train
        rows = [entries[path].rows for path in manifest.splits[split]]
        return sum(row for row in rows if row is not None) if None not in rows else None

    return Dataset(
        manifest, manifest.fingerprint, {split: partial(make, split) for split in splits}, locate, count
    )


def _read(paths: list[tuple[str, Path]], draw: Draw, part: str, start: int) -> Iterator[Item]:
    """Items of some files from the index `start`; `part` is the side of a draw, or empty."""
    if not part and not any(readers.is_rows(path) for _, path in paths):
        paths, start = paths[start:], 0  # each file is one item: those before the position stay closed
    items = itertools.chain.from_iterable(
        readers.read(path, name=name, passages=draw.passages) for name, path in paths
    )
    chosen = items if not part else (i for i in items if (i.uniform() < draw.threshold) == (part == "val"))
    return itertools.islice(chosen, start, None)


def _draw(manifest: Manifest, paths: list[tuple[str, Path]], settings: Settings) -> Draw:
    known = verified.recall(settings, "drawn").get(_draw_key(manifest))
    if isinstance(known, list) and len(known) == 4:
        return Draw(*known)
    draw = _survey(manifest, paths)
    values = [draw.threshold, draw.passages, draw.train, draw.val]
    verified.remember(settings, "drawn", {_draw_key(manifest): values})
    return draw


def _survey(manifest: Manifest, paths: list[tuple[str, Path]]) -> Draw:
    """Reads the set once to find a threshold that leaves at least one item on each side."""
    passages = 0
    texts = [path for _, path in paths if not readers.is_rows(path)]
    if manifest.kind == "text" and texts and len(texts) < FEW_DOCUMENTS:
        size = sum(path.stat().st_size for path in texts)
        passages = max(256, min(readers.PASSAGE_CHARS, size // PASSAGES))
    lowest, second, train, val = 1.0, 1.0, 0, 0
    for name, path in paths:
        for item in readers.read(path, name=name, passages=passages):
            place = item.uniform()
            if place < lowest:
                lowest, second = place, lowest
            elif lowest < place < second:
                second = place
            if place < VAL_FRACTION:
                val += 1
            else:
                train += 1
    if train + val < 2 or second == 1.0:
        raise DatasetError(
            f"{manifest.id} has {train + val} item(s), all with the same content."
            if train + val > 1
            else f"{manifest.id} has only {train + val} item(s): no validation split can be drawn.",
            next_step="Add more data, or give it files named train and val.",
        )
    if val and train:
        return Draw(VAL_FRACTION, passages, train, val)
    threshold = (lowest + second) / 2  # exactly the items that share the lowest hash go to val
    hashes = (
        item.uniform() < threshold
        for name, path in paths
        for item in readers.read(path, name=name, passages=passages)
    )
    total, val = train + val, sum(hashes)
    return Draw(threshold, passages, total - val, val)


def _wrong_kind(shard: str, kind: str, wanted: str) -> DatasetError:
    return DatasetError(
        f"{shard} holds {kind}, not {wanted}.",
        next_step=f"Choose a dataset of kind {wanted}; melete data list shows the kinds.",
    )


def _draw_key(manifest: Manifest) -> str:
    return f"{manifest.fingerprint} {manifest.kind} {' '.join(manifest.splits['train'])}"
