"""Pages of what is no table: things in order of a key, and places in a file; their cursors are checked, not trusted.

Like the cursors of `melete.gateway.queries`, one belongs to its list and filters and is refused with any others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable
from typing import TypeVar

from melete.api.store import Listed
from melete.errors import ConfigError

Thing = TypeVar("Thing")
Place = TypeVar("Place", int, str)


def page(
    things: Iterable[Thing],
    key: Callable[[Thing], str],
    *,
    of: str,
    limit: int,
    cursor: str | None,
    newest_first: bool = False,
) -> Listed[Thing]:
    """One page of things in the order of a key that each has for itself.

    Args:
        things: all of them.
        key: orders them.
        of: the list and its filters, which the cursor belongs to.
        limit: things at most.
        cursor: from the page before.
        newest_first: from the greatest key on.

    Raises:
        ConfigError: the cursor is not one of this list.
    """
    after = place(cursor, of, str)
    ordered = sorted(things, key=key, reverse=newest_first)
    if after is not None:
        ordered = [one for one in ordered if (key(one) < after if newest_first else key(one) > after)]
    found = ordered[:limit]
    more = cursor_at(key(found[-1]), of) if len(ordered) > limit else None
    return Listed(object="list", data=found, next_cursor=more)


def cursor_at(where: int | str, of: str) -> str:
    """A cursor: a place, bound to a list and its filters."""
    return base64.urlsafe_b64encode(json.dumps([_digest(of), where]).encode()).decode().rstrip("=")


def place(cursor: str | None, of: str, kind: type[Place]) -> Place | None:
    """The place in a cursor; None for no cursor.

    Raises:
        ConfigError: it is not a cursor of this list and these filters.
    """
    if cursor is None:
        return None
    try:
        found = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if isinstance(found, list) and len(found) == 2 and found[0] == _digest(of):
            where = found[1]
            if isinstance(where, str) and kind is str:
                return where  # type: ignore[return-value]
            if isinstance(where, int) and not isinstance(where, bool) and kind is int and 0 <= where < 2**53:
                return where  # type: ignore[return-value]
    except (ValueError, binascii.Error, RecursionError):
        pass
    raise ConfigError(
        "The cursor does not belong to this list and these filters.",
        next_step="Start without a cursor, and keep the filters while following next_cursor.",
    )


def _digest(of: str) -> str:
    return hashlib.sha256(of.encode("utf-8", "replace")).hexdigest()[:12]
