"""Our own /metrics page: what the gateway carried, from the database, with labels whose number is bounded.

Labels are variant, model, provider, status, error class and kinds of tokens: words of configuration files and of closed
lists. A key, an alias, a session or a text that a client sent is never a label (the model of a refused request is not
shown), and beyond `MOST_VALUES` values of one label further ones are counted as `other`.

A page is one read of the requests that began in the last minutes, added to sums over all older ones, which are read
once and again every hour for what was recorded late. It is for looking at what goes on; exact figures of a session or
a comparison come from `melete bench`. Histograms of latency carry the names of OpenTelemetry's conventions for
generative AI as well.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from melete.errors import MissingExtraError, ServerError
from melete.gateway.entities import name_of
from melete.settings import Settings
from melete.store import database

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from sqlalchemy import Connection, Engine

MOST_VALUES = 100
"""Values of one label that are told apart."""
LONGEST_VALUE = 80
OPEN_S = 900.0
"""Requests that began within this time are read anew for each page."""
RECOUNT_S = 3600.0
FRESH_S = 2.0
"""A page that is this young is served again, however many ask."""
BOUNDS_S = (
    0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
"""Upper bounds of the histograms, closer together than LiteLLM's."""
TOKENS = ("tokens_in", "tokens_cached", "tokens_cache_write", "tokens_out", "tokens_reasoning")
NONE = "none"
OTHER = "other"
FAR_S = 1e12
MOST_OVERFLOW = 10_000


def _bucket(column: str) -> str:
    """SQL for the number of the bucket that a column of milliseconds falls into; -1 for NULL."""
    cases = " ".join(f"WHEN {column} <= {bound * 1e3} THEN {n}" for n, bound in enumerate(BOUNDS_S))
    return f"CASE WHEN {column} IS NULL THEN -1 {cases} ELSE {len(BOUNDS_S)} END"


REQUESTS = f"""
SELECT s.variant, CASE WHEN r.status = 'refused' THEN NULL ELSE r.model_asked END, r.provider, r.status,
       r.error_class, {_bucket("r.latency_ms")}, {_bucket("r.ttft_ms")}, count(*),
       sum(r.latency_ms), sum(r.ttft_ms), sum(r.cost_usd), {", ".join(f"sum(r.{name})" for name in TOKENS)}
FROM request r LEFT JOIN session s ON s.id = r.session_id
WHERE r.started_s >= :since AND r.started_s < :until
GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY min(r.started_s)
"""
SESSIONS = """
SELECT variant, state, CASE WHEN solved IS NULL THEN 'unknown' WHEN solved THEN 'solved' ELSE 'failed' END, count(*)
FROM session GROUP BY 1, 2, 3
"""


@dataclass
class Totals:
    """Sums over the requests of one combination of labels."""

    requests: int = 0
    latencies: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    latency_s: float = 0.0
    first_tokens: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    first_token_s: float = 0.0
    tokens: list[int] = field(default_factory=lambda: [0] * len(TOKENS))
    cost_usd: float = 0.0

    def add(self, other: Totals) -> None:
        """Adds the sums of another combination."""
        self.requests += other.requests
        self.latency_s += other.latency_s
        self.first_token_s += other.first_token_s
        self.cost_usd += other.cost_usd
        self.latencies = [a + b for a, b in zip(self.latencies, other.latencies, strict=True)]
        self.first_tokens = [a + b for a, b in zip(self.first_tokens, other.first_tokens, strict=True)]
        self.tokens = [a + b for a, b in zip(self.tokens, other.tokens, strict=True)]


Labels = tuple[str, str, str, str, str]
"""Variant, model, provider, status, error class."""
Sums = dict[Labels, Totals]


class Figures:
    """What a page shows, read from the database; `collect` is what `prometheus_client` calls.

    Args:
        engine: the database, at its newest schema.
        now: clock in seconds since the epoch.
    """

    def __init__(self, engine: Engine, now: Callable[[], float] = time.time) -> None:
        self._engine, self._now = engine, now
        self._lock = threading.Lock()
        self._known: dict[str, set[str]] = defaultdict(set)
        self._overflow: dict[str, set[str]] = defaultdict(set)
        self._closed: Sums = {}
        self._closed_until_s = 0.0
        self._recounted_s = float("-inf")
        self._read_s = float("-inf")
        self._page: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """The metric families of a page; a database that does not answer leaves the last ones standing."""
        from prometheus_client.core import GaugeMetricFamily
        from sqlalchemy.exc import SQLAlchemyError

        with self._lock:
            up = 1
            if not 0 <= self._now() - self._read_s < FRESH_S:
                try:
                    with self._engine.connect() as connection:
                        self._page = list(self._read(connection, self._now()))
                    self._read_s = self._now()
                except SQLAlchemyError:
                    up = 0
            page = [*self._page]
        yield GaugeMetricFamily("melete_database_up", "Whether the database answered.", up)
        yield from page

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry must not read the database to learn names."""
        return []

    def _read(self, connection: Connection, now_s: float) -> Iterator[Metric]:
        boundary_s = (now_s - OPEN_S) // 60 * 60
        if now_s - self._recounted_s >= RECOUNT_S or boundary_s < self._closed_until_s:
            self._closed, self._closed_until_s, self._recounted_s = {}, 0.0, now_s
        _add_all(self._closed, self._sums(connection, self._closed_until_s, boundary_s))
        self._closed_until_s = boundary_s
        sums = self._sums(connection, boundary_s, FAR_S)
        _add_all(sums, self._closed)
        yield from _request_families(sums)
        yield from self._session_families(connection)
        yield _counter(
            "melete_label_overflow", "Label values beyond the cap, counted as `other`.", ("label",),
            {(name,): len(values) for name, values in self._overflow.items()},
        )  # fmt: skip

    def _sums(self, connection: Connection, since_s: float, until_s: float) -> Sums:
        from sqlalchemy import text

        sums: Sums = defaultdict(Totals)
        for row in connection.execute(text(REQUESTS), {"since": since_s, "until": until_s}):
            variant, model, provider, status, error_class, latency, first, count, *figures = row
            labels = (
                self._bounded("variant", name_of(variant or NONE)),
                self._bounded("model", model),
                self._bounded("provider", provider),
                self._bounded("status", status),
                self._bounded("error_class", error_class),
            )
            one = Totals(
                requests=count, latency_s=(figures[0] or 0) / 1e3, first_token_s=(figures[1] or 0) / 1e3
            )
            one.latencies[latency] += count if latency >= 0 else 0
            one.first_tokens[first] += count if first >= 0 else 0
            one.cost_usd = float(figures[2] or 0)
            one.tokens = [int(figure or 0) for figure in figures[3:]]
            sums[labels].add(one)
        return sums

    def _session_families(self, connection: Connection) -> Iterator[Metric]:
        from sqlalchemy import text

        sessions: dict[tuple[str, ...], float] = defaultdict(float)
        for variant, state, outcome, count in connection.execute(text(SESSIONS)):
            sessions[self._bounded("variant", name_of(variant or NONE)), state, outcome] += count
        yield _gauge(
            "melete_sessions", "Sessions by state and outcome.", ("variant", "state", "outcome"), sessions
        )

    def _bounded(self, label: str, value: str | None) -> str:
        """The value as a label, `none` for nothing, `other` beyond the cap."""
        value = (value or NONE)[:LONGEST_VALUE]
        known = self._known[label]
        if value in known:
            return value
        if len(known) < MOST_VALUES:
            known.add(value)
            return value
        if len(self._overflow[label]) < MOST_OVERFLOW:
            self._overflow[label].add(value)
        return OTHER


class Exporter:
    """A running page.

    Attributes:
        port: where it listens.
        url: of the page.
    """

    def __init__(self, engine: Engine, server: WSGIServer, thread: threading.Thread, host: str) -> None:
        self._engine, self._server, self._thread = engine, server, thread
        self.port: int = server.server_port
        self.url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{self.port}/metrics"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._engine.dispose()

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(settings: Settings, port: int, *, host: str = "127.0.0.1") -> Exporter:
    """Serves the page from a thread of this process.

    Args:
        settings: where the database is; it is upgraded first if need be.
        port: 0 takes a free one.
        host: address to listen on. The page asks for no token and holds no secret.

    Raises:
        MissingExtraError: `prometheus_client` is not installed.
        ServerError: the port is taken.
        StorageError: the database cannot be used.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ModuleNotFoundError as error:
        raise MissingExtraError("prometheus_client", "gateway") from error
    with database.connect(settings.database):
        pass  # brings the schema to the newest revision
    engine = database.open_engine(settings.database)
    registry = CollectorRegistry()
    registry.register(Figures(engine))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        engine.dispose()
        raise ServerError(
            f"The page of metrics cannot listen on {host}, port {port}: {error.strerror or error}.",
            next_step="Take another port, or 0 for a free one.",
        ) from error
    return Exporter(engine, server, thread, host)


def _add_all(into: Sums, more: Sums) -> None:
    for labels, totals in more.items():
        into.setdefault(labels, Totals()).add(totals)


def _request_families(sums: Sums) -> Iterator[Metric]:
    requests: dict[tuple[str, ...], float] = defaultdict(float)
    errors: dict[tuple[str, ...], float] = defaultdict(float)
    tokens: dict[tuple[str, ...], float] = defaultdict(float)
    cost: dict[tuple[str, ...], float] = defaultdict(float)
    by_model: dict[tuple[str, ...], Totals] = defaultdict(Totals)
    for (variant, model, provider, status, error_class), totals in sorted(sums.items()):
        requests[variant, model, provider, status] += totals.requests
        if error_class != NONE:
            errors[variant, model, error_class] += totals.requests
        for kind, count in zip(TOKENS, totals.tokens, strict=True):
            tokens[variant, model, kind.removeprefix("tokens_")] += count
        cost[variant, model] += totals.cost_usd
        by_model[variant, model, provider].add(totals)
    names = ("variant", "model")
    yield _counter(
        "melete_requests", "Requests that ended or were refused.", (*names, "provider", "status"), requests
    )
    yield _counter("melete_request_errors", "Requests by class of error.", (*names, "error_class"), errors)
    yield _counter("melete_tokens", "Tokens by kind.", (*names, "kind"), tokens)
    yield _counter("melete_cost_usd", "Cost in US dollars.", names, cost)
    whole = {key: (totals.latencies, totals.latency_s) for key, totals in by_model.items()}
    first = {key: (totals.first_tokens, totals.first_token_s) for key, totals in by_model.items()}
    ours = ("variant", "model", "provider")
    yield _histogram("melete_request_duration_seconds", "From request to last byte.", ours, whole)
    yield _histogram(
        "melete_time_to_first_token_seconds", "From request to first content token.", ours, first
    )
    # The conventions ask for these label names; `melete_variant` is ours.
    theirs = ("melete_variant", "gen_ai_request_model", "gen_ai_provider_name")
    yield _histogram(
        "gen_ai_client_operation_duration_seconds", "As melete_request_duration_seconds.", theirs, whole
    )
    yield _histogram(
        "gen_ai_client_operation_time_to_first_chunk_seconds",
        "As melete_time_to_first_token_seconds: chunks without content do not count.", theirs, first,
    )  # fmt: skip


Values = dict[tuple[str, ...], float]


def _counter(name: str, help_text: str, labels: tuple[str, ...], values: Values) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, help_text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, help_text: str, labels: tuple[str, ...], values: Values) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, help_text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(
    name: str, help_text: str, labels: tuple[str, ...], values: dict[tuple[str, ...], tuple[list[int], float]]
) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, help_text, labels=labels)
    for key, (counts, total) in values.items():
        bounds = [*(str(bound) for bound in BOUNDS_S), "+Inf"]
        cumulative = list(itertools.accumulate(counts))
        family.add_metric(key, list(zip(bounds, cumulative, strict=True)), total)
    return family
