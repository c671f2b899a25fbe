"""Reads counters from a Prometheus server, as a third witness of what passed the gateway: LiteLLM's own and ours.

A counter's growth over a window is summed from its raw samples: a restart of what is scraped (the counter falls) counts
on, and a series that is born after the first scrape of its target counts from zero, which PromQL's `increase` would
leave out. The figures are kept as rollups of the scope `source`, beside those computed from requests and never added
to them. Limits: growth before the first scrape and between the last one and a crash is not seen, and LiteLLM's
counters know models, not variants or sessions.
"""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from melete.errors import ConfigError, StorageError
from melete.store.database import upsert
from melete.store.models import MetricRollupRow, table

ROLLUPS = table(MetricRollupRow)
SCOPE = "source"
LOOK_BACK_S = 300.0
"""A series without a sample in this time before the window was born in it; Prometheus's own staleness limit."""
WAIT_S = 30.0


@dataclass(frozen=True)
class Counter:
    """A counter that is read.

    Attributes:
        series: its name on the page.
        source: `exporter` (our page) or `litellm`.
        figure: what it is kept as, such as `requests`.
        by: the label whose values are told apart.
        subject: what that label names, `variant` or `model`.
        only: further matchers, as PromQL writes them.
    """

    series: str
    source: str
    figure: str
    by: str
    subject: str
    only: str = ""


COUNTERS = (
    Counter("melete_requests_total", "exporter", "requests", "variant", "variant"),
    Counter("melete_cost_usd_total", "exporter", "cost_usd", "variant", "variant"),
    Counter("melete_tokens_total", "exporter", "tokens_in", "variant", "variant", 'kind="in"'),
    Counter("melete_tokens_total", "exporter", "tokens_out", "variant", "variant", 'kind="out"'),
    Counter("litellm_proxy_total_requests_metric_total", "litellm", "requests", "requested_model", "model"),
    Counter("litellm_spend_metric_total", "litellm", "cost_usd", "requested_model", "model"),
    Counter("litellm_input_tokens_metric_total", "litellm", "tokens_in", "requested_model", "model"),
    Counter("litellm_output_tokens_metric_total", "litellm", "tokens_out", "requested_model", "model"),
)


@dataclass(frozen=True)
class Reading:
    """By how much a counter grew in a window, for one variant or model.

    Attributes:
        samples: how many samples the figure rests on.
    """

    source: str
    subject: str
    name: str
    figure: str
    value: float
    samples: int


def read(url: str, since_s: float, until_s: float | None = None) -> list[Reading]:
    """Reads the growth of all counters.

    Args:
        url: the server, such as `http://127.0.0.1:9090`.
        since_s: beginning of the window, seconds since the epoch.
        until_s: its end; now by default.

    Raises:
        ConfigError: the URL is not one of HTTP, or the window is empty.
        StorageError: the server does not answer, or not as Prometheus does.
    """
    until_s = time.time() if until_s is None else until_s
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(
            f"{url!r} is not the URL of a Prometheus server.", allowed="Such as http://127.0.0.1:9090."
        )
    if not since_s < until_s:
        raise ConfigError(
            "The window from which Prometheus is to be read is empty: it ends before it begins."
        )
    begin_s = since_s - LOOK_BACK_S
    first_s = {
        _target(labels): next((at_s for at_s, value in samples if value), math.inf)
        for labels, samples in _series(url, "up", begin_s, until_s)
    }
    found = []
    for counter in COUNTERS:
        grown: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        for labels, samples in _series(url, f"{counter.series}{{{counter.only}}}", begin_s, until_s):
            born = samples[0][0] > first_s.get(_target(labels), math.inf)
            sums = grown[labels.get(counter.by, "none")]
            sums[0] += growth(samples, since_s, born=born)
            sums[1] += sum(at_s >= since_s for at_s, _ in samples)
        found += [
            Reading(counter.source, counter.subject, name, counter.figure, value, int(samples))
            for name, (value, samples) in sorted(grown.items())
            if samples
        ]
    return found


def growth(samples: Sequence[tuple[float, float]], since_s: float, *, born: bool) -> float:
    """By how much a counter grew from `since_s` on.

    Args:
        samples: (time, value) in the order of time, from some while before the window on.
        since_s: beginning of the window.
        born: whether its target was scraped before without it, so that it began at zero.
    """
    total, before = 0.0, 0.0 if born else samples[0][1]
    for at_s, value in samples:
        if at_s >= since_s:
            total += value - before if value >= before else value
        before = value
    return total


def keep(connection: Connection, readings: Iterable[Reading]) -> int:
    """Keeps readings as rollups of the scope `source`; a later reading of the same figure replaces the earlier one."""
    rows = [
        {
            "scope": SCOPE,
            "scope_id": f"{reading.source}/{reading.subject}/{reading.name}"[:200],
            "metric": reading.figure,
            "value": reading.value,
            "count": reading.samples,
            "columns": None,
        }
        for reading in readings
    ]
    upsert(connection, ROLLUPS, rows)
    return len(rows)


def _target(labels: Mapping[str, str]) -> tuple[str | None, str | None]:
    return labels.get("job"), labels.get("instance")


def _series(
    url: str, selector: str, since_s: float, until_s: float
) -> list[tuple[Mapping[str, str], list[tuple[float, float]]]]:
    """The labels and raw samples of each series that a selector finds."""
    query = f"{selector}[{max(1, math.ceil(until_s - since_s))}s]"
    return [
        (series["metric"], [(float(at_s), float(value)) for at_s, value in series["values"]])
        for series in _ask(url, {"query": query, "time": f"{until_s:.3f}"})
    ]


def _ask(url: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
    address = f"{url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode(parameters)}"
    parts = urllib.parse.urlsplit(url)
    shown = parts._replace(query="", netloc=parts.netloc.rpartition("@")[2]).geturl()
    try:
        with urllib.request.urlopen(address, timeout=WAIT_S) as response:
            answer = json.load(response)
        if answer["status"] != "success" or answer["data"]["resultType"] != "matrix":
            raise ValueError(answer.get("error", "no matrix"))
        return list(answer["data"]["result"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"Prometheus at {shown} cannot be read: {str(error)[:200]}.",
            next_step="See that it is up and that the URL is the server's own, without a path.",
        ) from error
