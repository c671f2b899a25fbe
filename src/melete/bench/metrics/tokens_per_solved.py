"""Tokens per solved task: prompt and answer tokens of all sessions, over the number of tasks solved."""

import numpy as np

from melete.bench.columns import Array, Columns
from melete.bench.metric import Ratio


def _tokens(columns: Columns) -> Array:
    tokens = columns.total(columns.figure("tokens_in")) + columns.total(columns.figure("tokens_out"))
    return np.where(columns.counts == 0, 0.0, tokens)


METRIC = Ratio(
    title="tokens per solved task",
    unit="tokens",
    better="lower",
    order=5,
    note="Prompt and answer tokens, those of failed attempts too: the price of models that have none.",
    top=_tokens,
    bottom=lambda columns: columns.solved,
)
