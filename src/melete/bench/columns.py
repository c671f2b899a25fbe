"""Columns: sessions and their requests as arrays, packed so that a million requests are read in a fraction of a second.

Each ended session keeps its requests as one blob among its rollups: what they say in words (`WORDS`) counted as JSON,
then fixed-size records (`REQUEST`, little-endian), which are joined for many sessions and read as they are. Unknown is
NaN for times and money and -1 for counts. The layout is known by `LAYOUT`: when it changes, the name changes and
rollups are computed again. `STATUSES` and `ERRORS` are therefore only ever added to at their end.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LAYOUT = "columns_1"
"""Name of the rollup that holds the packed requests of a session."""
TIMES = ("started_s", "latency_ms", "ttft_ms", "gap_p95_ms", "overhead_ms", "cost_usd")
COUNTS = (
    "tokens_in", "tokens_cached", "tokens_cache_write", "tokens_out", "tokens_reasoning", "tool_calls",
    "attempts",
)  # fmt: skip
REQUEST = np.dtype(
    [
        *((name, "<f8") for name in TIMES),
        *((name, "<i4") for name in COUNTS),
        *((name, "u1") for name in ("status", "error", "estimated")),
    ]
)
STATUSES = ("ok", "error", "client_abort", "cache_hit", "interrupted", "refused")
ERRORS = (
    "", "other", "rate_limit", "timeout", "context_window", "auth", "bad_request", "content_filter", "provider_error",
    "connection", "not_found", "budget", "refused_model", "refused_session", "interrupted", "client_abort",
)  # fmt: skip
WORDS = ("model_answered", "provider", "endpoint", "source", "cost_source", "changed")
"""Columns whose words are counted: which model answered how often, where a price came from."""
READ = (*TIMES, *COUNTS, "status", "error_class", "tokens_estimated", *WORDS)
"""Columns of a request's row that `pack` takes."""
LARGEST = 2**31 - 1


def pack(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Packs the requests of one session, in the order given.

    Args:
        rows: request rows with the columns `READ`.
    """
    listed, nan = list(rows), float("nan")
    packed = [
        (
            *(nan if row[name] is None else row[name] for name in TIMES[:-1]),
            nan if row["cost_usd"] is None or row["cost_source"] in (None, "none") else row["cost_usd"],
            *(-1 if row[name] is None else min(row[name], LARGEST) for name in COUNTS),
            STATUSES.index(row["status"]),
            ERRORS.index(row["error_class"] or "") if (row["error_class"] or "") in ERRORS else 1,
            bool(row["tokens_estimated"]),
        )
        for row in listed
    ]
    said = {name: Counter(word for row in listed for word in _words(row[name])) for name in WORDS}
    words = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    return struct.pack("<I", len(words)) + words + np.array(packed, dtype=REQUEST).tobytes()


def unpack(blob: bytes) -> tuple[bytes, memoryview]:
    """The words and the records of a packed session."""
    (length,) = struct.unpack_from("<I", blob)
    return blob[4 : 4 + length], memoryview(blob)[4 + length :]


@dataclass(frozen=True)
class Columns:
    """Sessions as arrays, S of them, with N requests in all that stand in the order of their sessions.

    Attributes:
        ids: (S,) session ids.
        task_cards: (S,) ids of the cards.
        attempts: (S,) which attempt at the card.
        solved: (S,) 1, 0, or NaN where the outcome is unknown.
        score: (S,) or NaN.
        metadata: (S,) what was noted of each session.
        words: (S,) JSON of the counted words of each session's requests.
        counts: (S,) requests of each session.
        requests: (N,) records of `REQUEST`.
    """

    ids: list[str]
    task_cards: list[str]
    attempts: list[int]
    solved: Array
    score: Array
    metadata: list[Mapping[str, Any]]
    words: list[bytes]
    counts: npt.NDArray[np.int64]
    requests: npt.NDArray[np.void]
    _kept: dict[Any, Array] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], blobs: Iterable[bytes]) -> Columns:
        """Joins sessions with their packed requests.

        Args:
            rows: session rows: `id`, `task_card`, `attempt`, `solved`, `score`, `metadata`.
            blobs: the packed requests of each, in the same order.
        """
        sessions, packed = list(rows), [unpack(blob) for blob in blobs]
        return cls(
            ids=[row["id"] for row in sessions],
            task_cards=[row["task_card"] or "" for row in sessions],
            attempts=[row["attempt"] for row in sessions],
            solved=np.array([_number(row["solved"]) for row in sessions], dtype=np.float64),
            score=np.array([_number(row["score"]) for row in sessions], dtype=np.float64),
            metadata=[row["metadata"] or {} for row in sessions],
            words=[words for words, _ in packed],
            counts=np.array([records.nbytes // REQUEST.itemsize for _, records in packed], dtype=np.int64),
            requests=np.frombuffer(b"".join(records for _, records in packed), dtype=REQUEST),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """(S,) index of each session's first request."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def cards(self) -> npt.NDArray[np.int64]:
        """(S,) number of each session's card; a session without a card is one of its own."""
        keys = [card or session for card, session in zip(self.task_cards, self.ids, strict=True)]
        number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        return np.array([number[key] for key in keys], dtype=np.int64)

    @cached_property
    def reported(self) -> list[Mapping[str, float]]:
        """(S,) what each harness said of itself, as plain figures by name."""
        return [figures(row.get("self_reported")) for row in self.metadata]

    @cached_property
    def statuses(self) -> dict[str, int]:
        """How many requests ended in which status."""
        counted = np.bincount(self.requests["status"], minlength=len(STATUSES))
        return {name: int(count) for name, count in zip(STATUSES, counted, strict=True) if count}

    @cached_property
    def errors(self) -> dict[str, int]:
        """How many requests failed for which reason."""
        counted = np.bincount(self.requests["error"], minlength=len(ERRORS))
        return {name: int(count) for name, count in zip(ERRORS, counted, strict=True) if name and count}

    @cached_property
    def spoken(self) -> dict[str, dict[str, int]]:
        """How many requests said which word, for each of `WORDS`; sorted by word."""
        counted: dict[str, Counter[str]] = {name: Counter() for name in WORDS}
        for text, sessions in Counter(self.words).items():
            for name, words in json.loads(text).items():
                for word, count in words.items():
                    counted[name][word] += count * sessions
        return {name: dict(sorted(words.items())) for name, words in counted.items()}

    @cached_property
    def answered(self) -> Mask:
        """(N,) whether the harness got a whole answer, from upstream or from the gateway's cache."""
        status = self.requests["status"]
        return np.asarray((status == STATUSES.index("ok")) | (status == STATUSES.index("cache_hit")))

    def has_status(self, *names: str) -> Array:
        """(N,) 1.0 where the status is one of `names`."""
        return np.isin(self.requests["status"], [STATUSES.index(name) for name in names]).astype(np.float64)

    def once(self, of: Callable[[Columns], Array]) -> Array:
        """What a function of these columns gives, computed at the first call; it must not be written to."""
        if of not in self._kept:
            self._kept[of] = of(self)
        return self._kept[of]

    def figure(self, name: str, where: Mask | None = None) -> Array:
        """(N,) one field of the requests; NaN where it is unknown or `where` is false. It must not be written to."""
        if name not in self._kept:
            values = self.requests[name].astype(np.float64)
            if name in COUNTS:
                values[values < 0] = np.nan
            self._kept[name] = values
        return self._kept[name] if where is None else np.where(where, self._kept[name], np.nan)

    def total(self, values: Array) -> Array:
        """(S,) sums over the requests (N,) of each session; NaN where a session has no known value."""
        known = np.isfinite(values)
        sums = self._sum(np.where(known, values, 0.0))
        sums[self._sum(known.astype(np.float64)) == 0] = np.nan
        return sums

    def number(self, values: Array) -> Array:
        """(S,) how many values of each session are known."""
        return self._sum(np.isfinite(values).astype(np.float64))

    def median(self, values: Array) -> Array:
        """(S,) nearest-rank median over the known values of each session; NaN where there is none."""
        known = np.isfinite(values)
        kept, counts = values[known], self._sum(known.astype(np.float64)).astype(np.int64)
        starts = np.cumsum(counts) - counts
        medians = np.full(len(self), np.nan)
        for count in np.unique(counts[counts > 0]):  # sessions of one length are sorted together
            alike = np.flatnonzero(counts == count)
            block = kept[starts[alike][:, None] + np.arange(count)]
            medians[alike] = np.partition(block, (count - 1) // 2, axis=1)[:, (count - 1) // 2]
        return medians

    def largest(self, values: Array) -> Array:
        """(S,) the largest known value of each session; NaN where there is none."""
        filled = np.where(np.isfinite(values), values, -np.inf)
        found = np.full(len(self), np.nan)
        some = self.counts > 0
        if some.any():
            found[some] = np.maximum.reduceat(filled, self.starts[some])
        found[~np.isfinite(found)] = np.nan
        return found

    def said(self, name: str) -> Array:
        """(S,) a figure that the harness reported of itself; NaN where it did not."""
        return np.array([report.get(name, np.nan) for report in self.reported], dtype=np.float64)

    def _sum(self, values: Array) -> Array:
        sums = np.zeros(len(self))
        some = self.counts > 0
        if some.any():
            sums[some] = np.add.reduceat(values, self.starts[some])
        return sums


def _words(value: Any) -> Iterable[str]:
    if value is None:
        return ()
    return value if isinstance(value, list) else (str(value),)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def figures(report: Any) -> dict[str, float]:
    """The plain finite figures of a self-report; whatever else a harness wrote there is left out."""
    if not isinstance(report, dict):
        return {}
    return {
        str(name): float(value)
        for name, value in report.items()
        if isinstance(value, (bool, int, float)) and abs(value) <= LARGEST  # a NaN compares false
    }
