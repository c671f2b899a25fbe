"""Metrics: plain functions on arrays; a figure comes with its count and, where it is an estimate, its interval."""

from melete.metrics.calibration import expected_calibration_error, reliability
from melete.metrics.intervals import (
    Interval,
    cluster_rate,
    mean,
    pass_at_k,
    percentile_interval,
    success_rate,
)
from melete.metrics.latency import percentiles
from melete.metrics.paired import Comparison, compare_pairs, mcnemar_p
from melete.metrics.ratios import compare_ratios, ratio

__all__ = [
    "Comparison",
    "Interval",
    "cluster_rate",
    "compare_pairs",
    "compare_ratios",
    "expected_calibration_error",
    "mcnemar_p",
    "mean",
    "pass_at_k",
    "percentile_interval",
    "percentiles",
    "ratio",
    "reliability",
    "success_rate",
]
