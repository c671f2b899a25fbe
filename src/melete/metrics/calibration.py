"""Calibration: does a model that says 80 % turn out right 8 times in 10?

The expected calibration error is the mean gap between confidence and accuracy over bins of equal width, weighted by
their counts. It depends on the number of bins and is biased upwards for few values: compare at equal counts and bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melete.metrics.intervals import Values, finite


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram; `low` is excluded and `high` included, but for the first bin."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(confidence: Values, correct: Values, bins: int = 15) -> list[Bin]:
    """The bins that hold values, for a reliability diagram.

    Source: M. P. Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015;
    C. Guo et al., On calibration of modern neural networks, ICML 2017.

    Args:
        confidence: (N,) stated probabilities of being right.
        correct: (N,) 0 or 1.
        bins: number of bins of equal width over [0, 1].

    Raises:
        ValueError: a confidence outside [0, 1], an outcome that is not 0 or 1, or lengths that differ.
    """
    stated, right = finite(confidence), finite(correct)
    if len(stated) != len(right):
        raise ValueError(f"{len(stated)} confidences and {len(right)} outcomes do not belong together")
    if stated.min() < 0 or stated.max() > 1:
        raise ValueError("a confidence lies between 0 and 1")
    if not np.isin(right, (0.0, 1.0)).all():
        raise ValueError("an outcome is 0 or 1")
    if bins < 1:
        raise ValueError(f"at least one bin is needed; found {bins}")
    place = np.clip(np.ceil(stated * bins).astype(int) - 1, 0, bins - 1)
    return [
        Bin(
            i / bins,
            (i + 1) / bins,
            int((place == i).sum()),
            float(stated[place == i].mean()),
            float(right[place == i].mean()),
        )
        for i in np.unique(place).tolist()
    ]


def expected_calibration_error(confidence: Values, correct: Values, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over the bins, weighted by their counts; 0 is perfect.

    Args and errors as of `reliability`.
    """
    filled = reliability(confidence, correct, bins)
    total = sum(one.count for one in filled)
    return sum(one.count / total * abs(one.accuracy - one.confidence) for one in filled)
