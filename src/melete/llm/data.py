"""Text as an endless stream of training rows: every token is trained on once per epoch, nothing is padded or dropped.

Documents are read in chunks of some megabytes, tokenised in one call on a background thread, joined with `<|bos|>`
into one stream and cut into rows of T + 1 tokens, each starting with the last token of the row before it, so that
each token is a target exactly once whatever the length of its document. What is left of a chunk is carried into the
next. Shards come in a new order each epoch and the rows of a chunk in a drawn order; both follow from the seed alone.

The position is a small JSON value (where the chunk began, the carried tokens, rows taken), so a resumed stream goes on
with exactly the next row. All ranks tokenise the same chunks and take every size-th row, so any number of ranks sees
the same global batches. Limits: attention may look across document boundaries within a row, and a rank's tokeniser
thread must keep up with the whole job (some five million tokens a second on one core).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melete.datasets import Dataset
from melete.errors import DatasetError
from melete.llm.distributed import SINGLE, World
from melete.llm.tokenizer import Tokenizer

CHUNK_CHARS = 8_000_000


@dataclass(frozen=True)
class Batch:
    """This rank's rows of one global batch.

    Attributes:
        tokens: (B, T) int64.
        targets: (B, T) int64.
        position: where the stream stands after this batch; pass it to `Rows` to go on from there.
    """

    tokens: Tensor
    targets: Tensor
    position: dict[str, Any]


@dataclass(frozen=True)
class _Chunk:
    """Rows of one chunk (R, T + 1) in drawn order, where it began and where the next one begins."""

    rows: np.ndarray
    start: dict[str, Any]
    following: dict[str, Any]


class Rows:
    """Endless iterator over batches of a split; see the head of this file.

    Args:
        dataset: a text dataset.
        split: `train` or `val`.
        tokenizer: of the model.
        context: T, tokens per row.
        rows: rows of a global batch, a multiple of the number of ranks.
        seed: of the order.
        world: the ranks that share the batch.
        position: where to go on; None starts at the first epoch.
        chunk_chars: characters read before a chunk is cut into rows; the reach of the shuffle.

    Raises:
        DatasetError: the split holds too little text for a single row.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        tokenizer: Tokenizer,
        context: int,
        rows: int,
        seed: int,
        world: World = SINGLE,
        position: dict[str, Any] | None = None,
        chunk_chars: int = CHUNK_CHARS,
    ) -> None:
        assert rows % world.size == 0, f"{rows} rows do not divide among {world.size} ranks"
        self.dataset, self.split, self.tokenizer = dataset, split, tokenizer
        self.context, self.rows, self.seed, self.world = context, rows, seed, world
        self.chunk_chars = chunk_chars
        self._shards = dataset.shards(split)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        start = position or {"epoch": 0, "shard": 0, "document": 0, "chunk": 0, "carry": [], "row": 0}
        self._taken = int(start["row"])
        self._chunk = self._read_chunk({**start, "row": 0})
        self._next: Future[_Chunk] | None = None

    @property
    def epoch(self) -> int:
        """Epoch of the chunk that rows are taken from, from 0."""
        return int(self._chunk.start["epoch"])

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        parts: list[np.ndarray] = []
        missing = self.rows
        while missing:
            if self._taken == len(self._chunk.rows):
                self._chunk, self._next = self._following().result(), None
                self._taken = 0
            part = self._chunk.rows[self._taken : self._taken + missing]
            self._taken += len(part)
            missing -= len(part)
            parts.append(part)
        self._next = self._following()
        own = np.concatenate(parts)[self.world.rank :: self.world.size]
        rows = torch.from_numpy(own.astype(np.int64))
        return Batch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous(), self.position)

    @property
    def position(self) -> dict[str, Any]:
        """JSON value from which an equal stream goes on with the next row."""
        return {**self._chunk.start, "row": self._taken}

    def close(self) -> None:
        """Ends the background thread."""
        self._background.shutdown(wait=True, cancel_futures=True)

    def _following(self) -> Future[_Chunk]:
        return self._next or self._background.submit(self._read_chunk, self._chunk.following)

    def _read_chunk(self, start: dict[str, Any]) -> _Chunk:
        """Reads and tokenises documents from a position on until there are rows."""
        T, place = self.context, dict(start)
        stream = np.array(start["carry"], dtype=np.int32)
        fruitless_epochs = 0
        while len(stream) <= T:
            texts, epoch = self._read_documents(place)
            stream = np.concatenate((stream, self.tokenizer.encode_documents(texts)))
            fruitless_epochs += place["epoch"] > epoch
            if fruitless_epochs > T:
                break
        count = (len(stream) - 1) // T
        if count < 1:
            raise DatasetError(
                f"The {self.split} split of {self.dataset.name} is too short for one row of {T:,} tokens.",
                next_step="Give it more text, or train with a smaller --context.",
            )
        rows = np.lib.stride_tricks.sliding_window_view(stream, T + 1)[::T][:count]
        order = np.random.default_rng((self.seed, start["chunk"])).permutation(count)
        following = {**place, "chunk": start["chunk"] + 1, "carry": stream[count * T :].tolist(), "row": 0}
        return _Chunk(rows[order], start, following)

    def _read_documents(self, place: dict[str, Any]) -> tuple[list[str], int]:
        """Documents of about `chunk_chars` characters within one epoch; moves `place` behind them."""
        epoch, texts, chars = place["epoch"], [], 0
        order = np.random.default_rng((self.seed, 1 << 32, epoch)).permutation(len(self._shards))
        while place["shard"] < len(self._shards):
            for text in self._shards[order[place["shard"]]].documents(place["document"]):
                place["document"] += 1
                texts.append(text)
                chars += len(text)
                if chars >= self.chunk_chars:
                    return texts, epoch
            place["shard"] += 1
            place["document"] = 0
        place.update(epoch=epoch + 1, shard=0, document=0)
        return texts, epoch


def chunk_chars(tokens: int) -> int:
    """Characters of a chunk for a run of so many tokens: a short run need not read megabytes before it starts."""
    return min(CHUNK_CHARS, max(200_000, 8 * tokens))


def validation_rows(
    dataset: Dataset, tokenizer: Tokenizer, context: int, tokens: int, split: str = "val"
) -> Tensor:
    """The first rows of a split in its own order, (R, T + 1) int64, of at most `tokens` targets.

    Raises:
        DatasetError: the split is empty or too short for one row.
    """
    texts, chars = [], 0
    for text in dataset.documents(split):
        texts.append(text)
        chars += len(text)
        if chars > 8 * tokens:  # no vocabulary averages more than eight characters a token
            break
    stream = torch.from_numpy(tokenizer.encode_documents(texts).astype(np.int64))
    rows = min(max(1, tokens // context), (len(stream) - 1) // context)
    if rows < 1:
        raise DatasetError(
            f"The {split} split of {dataset.name} has {len(stream):,} tokens.",
            allowed=f"Validation needs at least {context + 1:,} with a context of {context:,}.",
            next_step="Use a smaller --context, or more held-out text.",
        )
    return stream.unfold(0, context + 1, context)[:rows]


def bits_per_byte(nats: float, targets_bytes: int) -> float:
    """Cross-entropy in bits per byte of text, which does not depend on the vocabulary."""
    return nats / math.log(2) / max(1, targets_bytes)
