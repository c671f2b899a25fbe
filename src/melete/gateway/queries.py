"""Pages of rows, newest first or by name, with filters: what the command line and the HTTP API read.

A page is found by the key of the row before it (keyset), so any page of a million rows costs the same and rows that
arrive meanwhile shift nothing. A cursor is that key and a digest of the filters it belongs to; it is checked, not
trusted. A listing over many rows looks through at most `most_scanned` of them for one page: where a filter matches
little, a page holds fewer rows than asked for, or none, and still has a cursor that goes on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, select, tuple_

from melete.errors import ConfigError

MOST_ITEMS = 200
MOST_SCANNED = 20_000
BOUNDS = ("since_s", "until_s", "nearest")
"""Conditions on the first column of the order."""
Condition = Callable[[Connection, Any], ColumnElement[bool]]
Nearest = Callable[[Connection, Mapping[str, Any], Sequence[Any] | None], float | None]


@dataclass(frozen=True)
class Listing:
    """What can be listed, in which order, and by what it can be filtered.

    Attributes:
        noun: what one row is, for messages.
        table: the table.
        order: columns that order the rows and together are unique.
        filters: name of a filter to the condition that it means.
        newest_first: the direction of the order.
        leads: filters that have an index with `order` behind them, the most selective first.
        most_scanned: rows that are looked through for one page; None for a small table.
        nearest: for filters without an index, the time of the newest row after a key that can match; None if unknown.
        hidden: columns that are not shown.
        always: a condition that all shown rows meet.
    """

    noun: str
    table: Table
    order: tuple[str, ...]
    filters: Mapping[str, Condition] = field(default_factory=dict)
    newest_first: bool = True
    leads: tuple[str, ...] = ()
    most_scanned: int | None = None
    nearest: Nearest | None = None
    hidden: frozenset[str] = frozenset()
    always: ColumnElement[bool] | None = None


@dataclass(frozen=True)
class Page:
    """Some rows, and the cursor of the page after them, None at the end."""

    items: list[dict[str, Any]]
    next_cursor: str | None


def page(
    connection: Connection,
    listing: Listing,
    wanted: Mapping[str, Any],
    *,
    limit: int = 50,
    cursor: str | None = None,
) -> Page:
    """One page of a listing.

    Args:
        connection: an open one.
        listing: of what.
        wanted: filter to value; None values do not filter.
        limit: rows at most.
        cursor: from the page before, with the same filters.

    Raises:
        ConfigError: an unknown filter, a limit outside its range, a cursor that does not belong to these filters.
    """
    wanted = {name: value for name, value in wanted.items() if value is not None}
    unknown = sorted(set(wanted) - set(listing.filters))
    if unknown:
        raise ConfigError(
            f"A list of this kind ({listing.noun}) cannot be filtered by {unknown[0]!r}.",
            allowed=f"Filters: {', '.join(listing.filters)}.",
        )
    if not 1 <= limit <= MOST_ITEMS:
        raise ConfigError(f"limit is {limit}.", allowed=f"Allowed: 1 to {MOST_ITEMS}.")
    digest = _digest(listing, wanted)
    after = decode(cursor, digest, listing) if cursor else None
    conditions = {name: listing.filters[name](connection, value) for name, value in wanted.items()}
    if listing.nearest is not None and wanted:
        nearest = listing.nearest(connection, wanted, after)
        if nearest is not None:
            conditions["nearest"] = listing.table.c[listing.order[0]] <= nearest
    reached = None
    found = select(*(column for column in listing.table.c if column.key not in listing.hidden))
    found = found.where(*conditions.values(), *(() if listing.always is None else (listing.always,)))
    if after is not None:
        found = found.where(_beyond(listing, after))
    if listing.most_scanned is not None and wanted:
        reached = _reached(connection, listing, conditions, after)
    if reached is not None:
        found = found.where(~_beyond(listing, reached))
    rows = connection.execute(_ordered(found, listing).limit(limit + 1)).mappings().all()
    last = tuple(rows[limit - 1][name] for name in listing.order) if len(rows) > limit else reached
    items = [dict(row) for row in rows[:limit]]
    return Page(items, encode(last, digest) if last is not None else None)


def one(connection: Connection, listing: Listing, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row whose columns have these values, or None."""
    shown = [column for column in listing.table.c if column.key not in listing.hidden]
    wanted = [listing.table.c[name] == value for name, value in key.items()]
    row = connection.execute(select(*shown).where(*wanted)).mappings().first()
    return dict(row) if row is not None else None


def encode(key: Sequence[Any], digest: str) -> str:
    """A cursor: the key of the last row that was looked at, bound to its listing and filters."""
    return base64.urlsafe_b64encode(json.dumps([digest, *key]).encode()).decode().rstrip("=")


def decode(cursor: str, digest: str, listing: Listing) -> tuple[Any, ...]:
    """The key in a cursor.

    Raises:
        ConfigError: it is not a cursor of this listing and these filters.
    """
    try:
        found = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if isinstance(found, list) and len(found) == len(listing.order) + 1 and found[0] == digest:
            types = [listing.table.c[name].type.python_type for name in listing.order]
            if all(_plain(part, kind) for part, kind in zip(found[1:], types, strict=True)):
                return tuple(found[1:])
    except (ValueError, binascii.Error, RecursionError):
        pass
    raise ConfigError(
        "The cursor does not belong to this list and these filters.",
        next_step="Start without a cursor, and keep the filters while following next_cursor.",
    )


def _plain(part: object, kind: type) -> bool:
    """Whether a part of a key is one that a column of this type can hold."""
    if kind is str:
        return isinstance(part, str) and len(part) <= 500 and part.isprintable()
    return isinstance(part, int | float) and not isinstance(part, bool) and abs(part) < 1e15


def _digest(listing: Listing, wanted: Mapping[str, Any]) -> str:
    text = json.dumps([listing.noun, sorted((name, str(value)) for name, value in wanted.items())])
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def _beyond(listing: Listing, key: Sequence[Any]) -> ColumnElement[bool]:
    """The condition that a row comes after a key."""
    own = tuple_(*(listing.table.c[name] for name in listing.order))
    return own < tuple_(*key) if listing.newest_first else own > tuple_(*key)


def _ordered(query: Select[Any], listing: Listing) -> Select[Any]:
    columns = [listing.table.c[name] for name in listing.order]
    return query.order_by(*(column.desc() if listing.newest_first else column.asc() for column in columns))


def _reached(
    connection: Connection,
    listing: Listing,
    conditions: Mapping[str, ColumnElement[bool]],
    after: Sequence[Any] | None,
) -> tuple[Any, ...] | None:
    """The key of the last row that this page may look at, counted along an index; None where the end is nearer."""
    assert listing.most_scanned is not None
    lead = next((name for name in listing.leads if name in conditions), None)
    columns = [listing.table.c[name] for name in listing.order]
    query = select(*columns).where(*(conditions[name] for name in conditions if name in (lead, *BOUNDS)))
    if after is not None:
        query = query.where(_beyond(listing, after))
    row = connection.execute(_ordered(query, listing).offset(listing.most_scanned - 1).limit(1)).first()
    return tuple(row) if row is not None else None
