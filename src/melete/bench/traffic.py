"""What a session's requests add up to so far: counts, tokens, cost, the last error; read while it goes on."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from melete.gateway import ingest
from melete.store.models import RequestRow, table

REQUESTS = table(RequestRow)
FINE = ("ok", "cache_hit")


@dataclass(frozen=True)
class Traffic:
    """Requests of one session that have ended, and how many are on their way.

    `cost_usd` is None if no request has a price, and `unpriced` counts those without one
    that reached a provider.
    """

    requests: int
    open: int
    failed: int
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    unpriced: int
    last_error: str | None

    def line(self) -> str:
        """The traffic in one line for people."""
        parts = [f"{self.requests} request{'s' if self.requests != 1 else ''}"]
        if self.open:
            parts.append(f"{self.open} on the way")
        if self.failed:
            parts.append(f"{self.failed} failed")
        parts.append(f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out")
        if self.cost_usd is not None:
            parts.append(
                usd(self.cost_usd) + (f" ({self.unpriced} without a price)" if self.unpriced else "")
            )
        if self.last_error:
            parts.append(f"last error: {self.last_error}")
        return ", ".join(parts)


def usd(cost: float) -> str:
    """An amount of USD; small ones with more digits."""
    return f"${cost:.6f}" if cost < 0.1 else f"${cost:,.2f}"


def of_session(connection: Connection, id: str) -> Traffic:
    """The traffic of one session, from the rows that are in the store now."""
    request, mine = REQUESTS.c, REQUESTS.c.session_id == id
    counted = connection.execute(
        select(
            func.count(),
            func.coalesce(func.sum(request.tokens_in), 0),
            func.coalesce(func.sum(request.tokens_out), 0),
            func.sum(request.cost_usd),
            func.count().filter(request.cost_usd.is_(None), request.status != "refused"),
        ).where(mine)
    ).one()
    wrong = mine & request.status.not_in(FINE)
    failed = connection.scalar(select(func.count()).where(wrong)) or 0
    last = connection.execute(
        select(request.status, request.error_class, request.http_status)
        .where(wrong)
        .order_by(request.started_s.desc(), request.id.desc())
        .limit(1)
    ).first()
    error = None
    if last is not None:
        error = last.error_class or last.status
        error += f" ({last.http_status})" if last.http_status else ""
    requests, tokens_in, tokens_out, cost, unpriced = counted
    return Traffic(
        requests=requests,
        open=ingest.open_requests(connection, id),
        failed=failed,
        tokens_in=int(tokens_in),
        tokens_out=int(tokens_out),
        cost_usd=None if cost is None else float(cost),
        unpriced=unpriced,
        last_error=error,
    )
