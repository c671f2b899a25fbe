"""Tokens per second: how fast a streamed answer comes after its first token."""

import numpy as np

from melete.bench.columns import Array, Columns
from melete.bench.metric import PerRequest


def _speed(columns: Columns) -> Array:
    """Tokens after the first one, over the time after the first one; one token has no speed."""
    tokens = columns.figure("tokens_out", columns.answered) - 1
    seconds = (columns.figure("latency_ms") - columns.figure("ttft_ms")) / 1000
    speed = np.full(len(tokens), np.nan)
    np.divide(tokens, seconds, out=speed, where=(tokens > 0) & (seconds > 0))
    return speed


METRIC = PerRequest(
    title="tokens per second",
    unit="tokens/s",
    better="higher",
    order=11,
    note="Streamed requests, after the first token. High percentiles are the fast ones.",
    of=_speed,
)
