"""Completions of one episode as rows to train on: one row as long as each prompt goes on where the last turn ended.

The turns of an episode share their beginnings: the prompt of the second is the first prompt, what the model wrote, and
what it was answered. Where that holds token by token, the whole episode is one row in which only the drawn tokens are
trained, and nothing is computed twice. Where it does not hold (a chat template that rewrites earlier turns, a text
that is cut into other tokens when it is read back), a new row begins; no token is dropped or trained in a context
that it was not drawn in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Completion = tuple[Sequence[int], Sequence[int], Sequence[float]]
"""Prompt ids, drawn ids, log-probs of the drawn ids."""


@dataclass(frozen=True)
class Row:
    """Token ids (n,) int64, and for each the log-prob it was drawn with, (n,) float32, NaN where it was not drawn."""

    tokens: np.ndarray
    logprobs: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def drawn(self) -> int:
        """Tokens that were drawn."""
        return int((~np.isnan(self.logprobs)).sum())


def merge(completions: Iterable[Completion]) -> list[Row]:
    """Rows of an episode's completions, in order; completions without a drawn token are left out."""
    rows: list[tuple[list[int], list[float]]] = []
    for prompt, drawn, logprobs in completions:
        if not drawn:
            continue
        if not (rows and goes_on(rows[-1][0], prompt)):
            rows.append(([], []))
        tokens, kept = rows[-1]
        given = list(prompt[len(tokens) :])
        tokens += [*given, *drawn]
        kept += [*[float("nan")] * len(given), *logprobs]
    return [Row(np.array(tokens), np.array(kept, dtype=np.float32)) for tokens, kept in rows]


def goes_on(before: Sequence[int], prompt: Sequence[int]) -> bool:
    """Whether a prompt begins with all of `before`, token by token."""
    return len(prompt) > len(before) and list(prompt[: len(before)]) == list(before)
