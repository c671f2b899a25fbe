"""Compares what several witnesses counted of the same requests, and names each difference.

Ours are the rows of `request`: every other count stands beside them and is never added. The hook and LiteLLM's log are
joined to rows one by one (see `matching`); Prometheus knows totals only. Each witness is compared with the rows that it
can have seen: LiteLLM's log and counters never see a rollout, nor a request that was refused before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from melete.gateway.collectors.prometheus import Reading
from melete.gateway.entities import name_of
from melete.store.models import RequestRow, SessionRow, SpendLogRow, table

REQUESTS = table(RequestRow)
SESSIONS = table(SessionRow)
LOGS = table(SpendLogRow)
NONE = "none"
UNSEEN = {
    "hook": frozenset({"rollout"}),
    "spend_logs": frozenset({"rollout", "refused", "interrupted"}),
    "exporter": frozenset[str](),
    "litellm": frozenset({"rollout", "refused", "interrupted"}),
}
"""Witness to the kinds of requests that it cannot have seen, or need not."""


@dataclass(frozen=True)
class Line:
    """What one witness counted of the requests of one variant or model.

    Attributes:
        source: hook, spend_logs, exporter or litellm.
        subject: `variant` or `model`.
        name: which one.
        ours: our rows.
        unseen: kind to how many of our rows this witness cannot have seen.
        seen: what it counted.
    """

    source: str
    subject: str
    name: str
    ours: int
    unseen: dict[str, int]
    seen: float

    @property
    def difference(self) -> float:
        """What it counted beyond what it can have seen; negative for less."""
        return self.seen - (self.ours - sum(self.unseen.values()))

    @property
    def sentence(self) -> str:
        """The difference in words."""
        reasons = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.unseen.items()))
        without = f" (without {reasons}, which it does not see)" if reasons else ""
        expected = self.ours - sum(self.unseen.values())
        if abs(self.difference) < 0.5:
            return f"{self.source} agrees: {expected:,} requests of {self.subject} {self.name}{without}."
        word = "more" if self.difference > 0 else "fewer"
        return (
            f"{self.source} counted {abs(self.difference):,.0f} {word} than our {expected:,} requests of "
            f"{self.subject} {self.name}{without}. {REASONS[self.source, word]}"
        )


REASONS = {
    ("hook", "fewer"): "The rest was told by LiteLLM's log alone: the spool has not been read, or was lost.",
    ("hook", "more"): "This cannot be: rows are made from its events.",
    ("spend_logs", "fewer"): "LiteLLM writes its log late, or it has not been read: melete bench collect.",
    ("spend_logs", "more"): "This cannot be: rows of the log become requests.",
    ("exporter", "fewer"): "They ended after the last scrape, or the page was away.",
    ("exporter", "more"): "They began before the window and ended in it.",
    (
        "litellm",
        "fewer",
    ): "They ended after the last scrape, before the first one, or between a scrape and a crash.",
    (
        "litellm",
        "more",
    ): "Its counters hold calls without a session of ours, and such as began before the window.",
}
"""The usual reason for a difference."""


def reconcile(
    connection: Connection, readings: Iterable[Reading], since_s: float, until_s: float
) -> list[Line]:
    """One line for each witness and each variant or model that it counted or we know of.

    Args:
        connection: an open one.
        readings: what Prometheus said of the window; may be empty.
        since_s: beginning of the window: requests that began in it, seconds since the epoch.
        until_s: its end.
    """
    counts = _ours(connection, since_s, until_s)
    counted = {(r.source, r.subject, r.name): r.value for r in readings if r.figure == "requests"}
    logs_read = bool(connection.scalar(select(func.count()).select_from(LOGS)))
    lines = []
    for (subject, name), kinds in sorted(counts.items()):
        seen: dict[str, float] = {}
        if subject == "variant":
            seen = {source: kinds["saw", source] for source in ("hook", "spend_logs")[: 1 + logs_read]}
        for source in ("exporter", "litellm"):
            value = counted.pop((source, subject, name), None)
            if value is not None:
                seen[source] = value
        lines += [_line(source, subject, name, kinds, value) for source, value in seen.items()]
    lines += [
        Line(source, subject, name, 0, {}, value)
        for (source, subject, name), value in sorted(counted.items())
        if value
    ]
    return lines


def _line(source: str, subject: str, name: str, kinds: Mapping[tuple[str, str], int], seen: float) -> Line:
    unseen = {kind: kinds["kind", kind] for kind in sorted(UNSEEN[source]) if kinds["kind", kind]}
    return Line(source, subject, name, kinds["", ""], unseen, seen)


def _ours(
    connection: Connection, since_s: float, until_s: float
) -> dict[tuple[str, str], Counter[tuple[str, str]]]:
    """(subject, name) to how many rows there are: all, by kind of traffic, and by who saw them."""
    variant, model = SESSIONS.c.variant, REQUESTS.c.model_asked
    query = (
        select(variant, model, REQUESTS.c.source, REQUESTS.c.status, func.count())
        .select_from(REQUESTS.outerjoin(SESSIONS, SESSIONS.c.id == REQUESTS.c.session_id))
        .where(REQUESTS.c.started_s >= since_s, REQUESTS.c.started_s < until_s)
        .group_by(variant, model, REQUESTS.c.source, REQUESTS.c.status)
    )
    found: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
    for of_variant, of_model, source, status, count in connection.execute(query):
        sources = source.split(",")
        kind = "rollout" if "rollout" in sources else status
        subjects = [("variant", name_of(of_variant) if of_variant else NONE)]
        if status != "refused":
            subjects.append(("model", of_model or NONE))
        for subject in subjects:
            counter = found.setdefault(subject, Counter())
            counter["", ""] += count
            counter["kind", kind] += count
            for one in sources:
                counter["saw", one] += count
    return found
