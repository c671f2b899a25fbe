"""Self-report against measurement: tokens that the harness says it used, over those that the gateway counted."""

import numpy as np

from melete.bench.columns import Array, Columns
from melete.bench.metric import Ratio


def _reported(columns: Columns) -> Array:
    return columns.said("tokens_in") + columns.said("tokens_out")


def _measured(columns: Columns) -> Array:
    measured = columns.total(columns.figure("tokens_in")) + columns.total(columns.figure("tokens_out"))
    return np.where(np.isfinite(_reported(columns)), measured, np.nan)


METRIC = Ratio(
    title="self-reported tokens over measured",
    unit="ratio",
    better="neither",
    order=20,
    note="1 means that the harness counts as the gateway does. Reported as tokens_in and tokens_out.",
    top=_reported,
    bottom=_measured,
)
