"""Conversations drawn from a mixture of datasets and packed into rows of the model's context.

Whole conversations are laid side by side in a row, best fit first (Ding et al. 2024, arXiv:2404.10830), so a
conversation is never cut to fill a row; a row starts with the conversation that has waited longest, so none is ever
stuck. One that is longer than a row is split between exchanges (a user's turn and all up to the next one), with the
system text and the tools repeated at the head of each part; an exchange that is longer than a row by itself keeps
the end of its prompt and the beginning of its answer. What was split, cut or lost is counted and said, never silent.

The row stream is a pure function of the seed and a small position, so training resumes at the exact row; every rank
makes the same stream and takes its own rows. Limit: conversations of one row see each other (no mask between them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from melete import datasets
from melete.errors import ConfigError, DatasetError
from melete.llm.chat import ChatFormat
from melete.llm.loss import IGNORE
from melete.records import Conversation
from melete.settings import Settings

BUFFER = 128
"""Pieces that wait for a row; more packs tighter and mixes less evenly."""
SAMPLE = 256
"""Conversations that a dataset's mean length is taken over."""


Place = tuple[int, int, int]
"""Dataset, conversation and part: where a piece comes from."""


@dataclass(frozen=True)
class Piece:
    """Tokens of one conversation or a part of it: ids (n,) int32, trained (n,) bool."""

    ids: np.ndarray
    trained: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Tally:
    """What became of the conversations of a dataset."""

    conversations: int = 0
    split: int = 0
    cut: int = 0
    untrained: int = 0
    trained_tokens: int = 0
    lost_tokens: int = 0

    def text(self) -> str:
        """One line for the log."""
        parts = [f"{self.conversations:,} conversations, {self.trained_tokens:,} trained tokens"]
        if self.split:
            parts.append(f"{self.split:,} split between exchanges to fit the context")
        if self.cut:
            parts.append(f"{self.cut:,} exchanges cut ({self.lost_tokens:,} trained tokens lost)")
        if self.untrained:
            parts.append(f"{self.untrained:,} without anything to train on, left out")
        return "; ".join(parts)


class Source:
    """One dataset of a mixture; its conversations are encoded when they are drawn.

    Args:
        name: the dataset.
        weight: share in the mixture, in any unit.
        conversations: all of the split.
        chat: how conversations become tokens.
        length: most tokens of a piece.
        fingerprint: the dataset's.

    Raises:
        DatasetError: no conversation has anything to train on.
    """

    def __init__(
        self,
        name: str,
        weight: float,
        conversations: list[Conversation],
        chat: ChatFormat,
        length: int,
        fingerprint: str = "",
    ) -> None:
        self.name, self.weight, self.conversations, self.fingerprint = (
            name,
            weight,
            conversations,
            fingerprint,
        )
        self._chat, self._length = chat, length
        if not any(turn.role == "assistant" for c in conversations for turn in c.turns):
            raise DatasetError(
                f"{name} has no assistant turn to train on ({len(conversations)} conversations read).",
                next_step='A row is {"messages": […]} with at least one message of "role": "assistant".',
            )
        self.tally = Tally()

    def __len__(self) -> int:
        return len(self.conversations)

    def pieces(self, index: int, tally: Tally | None = None) -> list[Piece]:
        """The pieces of a conversation; none if it has nothing to train on."""
        return encode(self.conversations[index], self._chat, self._length, tally or Tally())

    def mean_length(self) -> float:
        """Mean tokens of a conversation, over a sample spread evenly."""
        chosen = range(0, len(self), max(1, len(self) // SAMPLE))
        return sum(len(piece) for i in chosen for piece in self.pieces(i)) / len(chosen)


def parse_mixture(text: str) -> list[tuple[str, float | None]]:
    """Names and weights of `toolcalls:0.7,chat_star:0.3`; without a weight, a dataset counts by its size.

    Raises:
        ConfigError: no name, a weight that is not positive, or weights for some and not for others.
    """
    parts: list[tuple[str, float | None]] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, colon, number = part.rpartition(":")
        try:
            weight: float | None = float(number) if colon else None
        except ValueError:
            name, weight = part, None
        parts.append((name if colon and weight is not None else part, weight))
        if weight is not None and not (weight > 0 and math.isfinite(weight)):
            raise ConfigError(f"The weight of {name!r} is {number}.", allowed="A number above 0.")
    if not parts:
        raise ConfigError(
            "No dataset was named.", allowed="Such as: toolcalls, or toolcalls:0.7,chat_star:0.3"
        )
    if len({weight is None for _, weight in parts}) > 1:
        raise ConfigError(
            f"{text!r} has weights for some datasets only.", allowed="Weights for all, or for none."
        )
    return parts


def open_mixture(mixture: str, split: str, chat: ChatFormat, length: int, settings: Settings) -> list[Source]:
    """Reads and encodes the datasets of a mixture.

    Args:
        mixture: see `parse_mixture`; a name may be the path of a JSONL file of one's own.
        split: `train` or `val`; a dataset without a `val` split is left out of `val`.
        chat: how conversations become tokens.
        length: most tokens of a piece.
        settings: where datasets are.

    Raises:
        DatasetError: a dataset has no conversations, or none with anything to train on.
    """
    sources = []
    for name, weight in parse_mixture(mixture):
        dataset = datasets.open(name, settings)
        if dataset.manifest.kind != "conversations":
            raise DatasetError(
                f"{name} holds {dataset.manifest.kind}, not conversations.",
                next_step="Choose a dataset of kind conversations; melete data list shows the kinds.",
            )
        if split not in dataset.splits and split != "train":
            continue
        conversations = list(dataset.conversations(split))
        share = float(weight or len(conversations))
        sources.append(Source(name, share, conversations, chat, length, dataset.fingerprint))
    return sources


def encode(conversation: Conversation, chat: ChatFormat, length: int, tally: Tally) -> list[Piece]:
    """Pieces of at most `length` tokens, each with something to train on; what became of it goes to the tally."""
    tally.conversations += 1
    kept = [part for part in _parts(conversation, chat, length, tally) if part.trained[1:].any()]
    tally.untrained += not kept
    tally.trained_tokens += sum(int(piece.trained.sum()) for piece in kept)
    return kept


def _parts(conversation: Conversation, chat: ChatFormat, length: int, tally: Tally) -> list[Piece]:
    whole = _render(chat, conversation)
    if len(whole) <= length:
        return [whole]
    heads = [turn for turn in conversation.turns if turn.role == "system"]
    turns = [turn for turn in conversation.turns if turn.role != "system"]
    starts = [i for i, turn in enumerate(turns) if turn.role == "user" or i == 0]
    exchanges = [turns[a:b] for a, b in zip(starts, [*starts[1:], len(turns)], strict=True)]
    tally.split += len(exchanges) > 1
    parts: list[Piece] = []
    waiting: list[Any] = []
    last: Piece | None = None
    for exchange in exchanges:
        piece = _render(chat, Conversation((*heads, *waiting, *exchange), conversation.tools))
        if len(piece) > length and last is not None:
            parts.append(last)
            waiting = []
            piece = _render(chat, Conversation((*heads, *exchange), conversation.tools))
        if len(piece) > length:
            parts.append(_cut(piece, length, tally))
            waiting, last = [], None
        else:
            waiting, last = [*waiting, *exchange], piece
    return [*parts, last] if last is not None else parts


def _cut(piece: Piece, length: int, tally: Tally) -> Piece:
    """The first trained token stands in the middle at the latest: half a row of prompt before it, answer after it."""
    first = int(piece.trained.argmax())
    start = min(max(0, first - length // 2), len(piece) - length)
    kept = Piece(piece.ids[start : start + length], piece.trained[start : start + length])
    tally.cut += 1
    tally.lost_tokens += int(piece.trained.sum()) - int(kept.trained.sum())
    return kept


def _render(chat: ChatFormat, conversation: Conversation) -> Piece:
    ids, trained = chat.render(conversation, generation_prompt=False)
    return Piece(np.array(ids, dtype=np.int32), np.array(trained, dtype=bool))


class Rows:
    """An endless stream of packed rows from a mixture.

    Args:
        sources: the datasets; weights are shares of the conversations drawn.
        context: T; a row yields T inputs and T targets.
        seed: seed of the order.
        position: where to go on, as `position` gave it.
    """

    def __init__(
        self, sources: Sequence[Source], context: int, seed: int, position: dict[str, Any] | None = None
    ) -> None:
        self.sources = list(sources)
        self.context = context
        self.seed = seed
        self._drawn: list[int] = list(position["drawn"]) if position else [0] * len(self.sources)
        self._order: dict[int, tuple[int, np.ndarray]] = {}
        self._buffer: list[tuple[Place, Piece]] = []
        for source, conversation, part in position["buffer"] if position else ():
            piece = self.sources[source].pieces(conversation)[part]
            self._buffer.append(((source, conversation, part), piece))

    @property
    def position(self) -> dict[str, Any]:
        """Everything that decides the rows to come; plain JSON."""
        return {"drawn": list(self._drawn), "buffer": [list(place) for place, _ in self._buffer]}

    @property
    def epochs(self) -> float:
        """Conversations drawn, as a share of those that the mixture has."""
        return sum(self._drawn) / sum(len(source) for source in self.sources)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of one row, (T,) int64 each; -1 where a position has no loss."""
        while len(self._buffer) < BUFFER:
            self._draw()
        chosen = [self._buffer.pop(0)[1]]
        space = self.context + 1 - len(chosen[0])
        while (best := self._best_fit(space)) is not None:
            chosen.append(self._buffer.pop(best)[1])
            space -= len(chosen[-1])
        return row(chosen, self.context)

    def piece(self) -> Piece:
        """The next conversation, or part of one, by itself; not to be mixed with packed rows."""
        while not self._buffer:
            self._draw()
        return self._buffer.pop(0)[1]

    def _best_fit(self, space: int) -> int | None:
        fitting = [(len(piece), -i) for i, (_, piece) in enumerate(self._buffer) if len(piece) <= space]
        return -max(fitting)[1] if fitting else None

    def _draw(self) -> None:
        """Buffers the next conversation in the shuffled epoch of the dataset that is furthest behind its share."""
        total, weights = sum(self._drawn) + 1, [source.weight for source in self.sources]
        behind = [w / sum(weights) * total - n for w, n in zip(weights, self._drawn, strict=True)]
        chosen = behind.index(max(behind))
        source = self.sources[chosen]
        epoch, offset = divmod(self._drawn[chosen], len(source))
        self._drawn[chosen] += 1
        if self._order.get(chosen, (-1,))[0] != epoch:
            order = np.random.default_rng([self.seed, chosen, epoch]).permutation(len(source))
            self._order[chosen] = (epoch, order)
        conversation = int(self._order[chosen][1][offset])
        for part, piece in enumerate(source.pieces(conversation, source.tally)):
            self._buffer.append(((chosen, conversation, part), piece))


def row(pieces: Sequence[Piece], context: int) -> tuple[np.ndarray, np.ndarray]:
    """Pieces side by side as inputs and targets, (T,) int64 each; what is left over is padding without loss."""
    ids = np.concatenate([piece.ids for piece in pieces]).astype(np.int64)
    trained = np.concatenate([piece.trained for piece in pieces])
    # The first token of a piece would be predicted from another conversation: it is never trained.
    starts = np.cumsum([0, *(len(piece) for piece in pieces[:-1])])
    trained[starts] = False
    inputs = np.zeros(context, dtype=np.int64)
    targets = np.full(context, IGNORE, dtype=np.int64)
    inputs[: len(ids)] = ids[:context]
    targets[: len(ids) - 1] = np.where(trained[1:], ids[1:], IGNORE)
    return inputs, targets


def fixed_rows(sources: Sequence[Source], context: int, most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """At most `most` rows of pieces in their own order, the same at every call: for validation."""
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    waiting: list[Piece] = []
    # Datasets take turns, so that a small number of rows shows all of them.
    for piece in _in_turns(sources):
        if sum(map(len, waiting)) + len(piece) > context + 1:
            rows.append(row(waiting, context))
            waiting = []
            if len(rows) == most:
                return rows
        waiting.append(piece)
    return [*rows, row(waiting, context)] if waiting else rows


def _in_turns(sources: Sequence[Source]) -> Iterator[Piece]:
    for i in range(max(map(len, sources), default=0)):
        for source in sources:
            if i < len(source):
                yield from source.pieces(i)
