"""Rows of datasets page by page: places where pages ended are kept open; an answer reads for an eighth of a second.

A jump far into a split, and a search, read over what is before it. What that is not enough for is gone on with
by the next page: a page may hold few items, or none, and still have a cursor.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import Any

from melete.api import paging
from melete.api.clean import clean, text
from melete.api.records import DatasetRow
from melete.api.store import Listed
from melete.datasets.dataset import Dataset
from melete.datasets.readers import Item
from melete.errors import DatasetError, UnknownNameError

Place = tuple[str, str, int]
"""Fingerprint of a dataset, split, index."""
Items = Iterator[tuple[str, Any]]
LONGEST_S = 0.12
PAGES = 24
"""Pages that are kept."""
HELD = 16
"""Places that are kept, each with an open file."""


class Reader:
    """Reads pages of splits. It keeps the last ones, and where they ended, so that the next does not start over.

    Args:
        longest_s: how long one page passes over items and searches, in seconds; more than 0.
    """

    def __init__(self, longest_s: float = LONGEST_S) -> None:
        self._longest_s = longest_s
        self._pages: OrderedDict[tuple[Any, ...], Listed[DatasetRow]] = OrderedDict()
        self._held: OrderedDict[Place, Items] = OrderedDict()
        self._lock = threading.Lock()

    def page(
        self, opened: Dataset, split: str, start: int, of: str, limit: int, search: str | None = None
    ) -> Listed[DatasetRow]:
        """Items from an index on; the cursor belongs to `of`.

        Raises:
            DatasetError: there is no such split, or a file is missing or corrupt.
        """
        if not opened.splits:
            raise DatasetError(
                f"{opened.manifest.id} has no splits: its files are read by the systems that use them."
            )
        key = (opened.fingerprint, split, start, of, limit, search)
        with self._lock:
            known = self._pages.get(key)
        if known is not None:
            return known
        found, end = self._read(opened, split, start, limit, (search or "").lower())
        cursor = None if end is None else paging.cursor_at(end, of)
        page = Listed[DatasetRow](object="list", data=found, next_cursor=cursor)
        if end != start:
            with self._lock:
                self._pages[key] = page
                while len(self._pages) > PAGES:
                    self._pages.popitem(last=False)
        return page

    def _read(
        self, opened: Dataset, split: str, start: int, limit: int, wanted: str
    ) -> tuple[list[DatasetRow], int | None]:
        """Items, and the index at which the next page begins; None at the end of the split."""
        until_s = time.monotonic() + self._longest_s
        place, items = self._nearest(opened, split, start)
        while place < start and time.monotonic() < until_s:
            if next(items, None) is None:
                return [], None
            place += 1
        found: list[DatasetRow] = []
        while place >= start and len(found) < limit and (not wanted or time.monotonic() < until_s):
            item = next(items, None)
            if item is None:
                return found, None
            row = _row(place, *item)
            place += 1
            if not wanted or wanted in row.model_dump_json().lower():
                found.append(row)
        after = next(items, None)
        if after is None:
            return found, None
        self._keep((opened.fingerprint, split, place), chain([after], items))
        return found, max(place, start)

    def _nearest(self, opened: Dataset, split: str, start: int) -> tuple[int, Items]:
        """The kept place that is nearest before an index, or the beginning."""
        content = (opened.fingerprint, split)
        with self._lock:
            places = [place for *of, place in self._held if tuple(of) == content and place <= start]
            if places:
                return max(places), self._held.pop((*content, max(places)))
        return 0, _items(opened, split)

    def _keep(self, key: Place, items: Items) -> None:
        with self._lock:
            self._held[key] = items
            while len(self._held) > HELD:
                self._held.popitem(last=False)


def whole(opened: Dataset, split: str, index: int) -> Any:
    """One item as it is, however long.

    Raises:
        UnknownNameError: the split ends before it.
    """
    for place, (kind, item) in enumerate(_items(opened, split)):
        if place == index:
            return _value(kind, item)
    raise UnknownNameError("row", str(index), [])


def _items(opened: Dataset, split: str) -> Items:
    """Documents, conversations or rows, each with the kind of its shard; none is looked into yet."""
    for shard in opened.shards(split):
        items = shard.conversations(0) if shard.converse is not None else shard.read(0)
        for item in items:
            yield shard.kind, item


def _value(kind: str, item: Any) -> Any:
    if isinstance(item, Item):
        return item.text() if kind == "text" else item.row()
    return item


def _row(place: int, kind: str, item: Any) -> DatasetRow:
    value = _value(kind, item)
    if isinstance(value, str):
        return DatasetRow(index=place, text=text(value), row=None)
    row = value if isinstance(value, dict) else value.to_openai()
    return DatasetRow(index=place, text=None, row=clean(row))
