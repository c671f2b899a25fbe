"""Datasets: those of this home, those made here and the known public sets, with their rows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from melete import find
from melete.api import paging
from melete.api.cards import Cards
from melete.api.clean import clean, text
from melete.api.records import DatasetCard, DatasetDetail, DatasetRow, DatasetSource, DatasetSummary
from melete.api.store import Asked, Listed, Store, Text
from melete.datasets import card, registry
from melete.datasets.dataset import Dataset, Shard
from melete.datasets.manifest import Manifest
from melete.datasets.readers import Item
from melete.errors import DatasetError, UnknownNameError
from melete.settings import Settings

DatasetName = Annotated[
    str, Path(max_length=100, pattern=r"^[a-z0-9][a-z0-9_.-]*(@[A-Za-z0-9][A-Za-z0-9_.+-]*)?$",
              description="A name, or name@version.", examples=["stdlib"]),
]  # fmt: skip
SEARCHED = 5_000
"""Items that are looked at for one page of a search."""
PAGES = 24
"""Pages that are kept."""
HELD = 16
"""Places that are kept, each with an open file."""


class DatasetAsked(Asked):
    """Which datasets."""

    kind: Text | None = Field(None, description="text, conversations, rows or files.", examples=["text"])
    at_hand: bool | None = Field(None, description="Only those that can be read here, or only the others.")


class RowAsked(Asked):
    """Which rows."""

    split: Text | None = Field(
        None, description="Name of a split; the first one by default.", examples=["train"]
    )
    search: Text | None = Field(None, min_length=1, description="Only items with this text, in any case.")
    start: int = Field(0, ge=0, le=10**12, description="Index of the first item, where there is no cursor.")


def routes(store: Store) -> APIRouter:
    """A list by name, one of it, its card and its rows."""
    router, settings, reader = APIRouter(), store.settings, Reader()
    cards = Cards(settings)

    @router.get("")
    def list_datasets(asked: Annotated[DatasetAsked, Query()]) -> Listed[DatasetSummary]:
        """List datasets by name."""
        every = (_summary(_manifest(name, settings), settings) for name in registry.names(settings))
        found = [
            one for one in every if asked.kind in (None, one.kind) and asked.at_hand in (None, one.at_hand)
        ]
        of = f"datasets {asked.kind} {asked.at_hand}"
        return paging.page(found, lambda one: one.name, of=of, limit=asked.limit, cursor=asked.cursor)

    @router.get("/{name}")
    def get_dataset(name: DatasetName) -> DatasetDetail:
        """One dataset."""
        manifest = _manifest(_known(name, settings), settings)
        summary = _summary(manifest, settings)
        opened = registry.open(name, settings) if summary.at_hand else None
        return DatasetDetail(
            **summary.model_dump(),
            licence_notes=manifest.licence_notes,
            obligations=card.obligations(manifest),
            sources=[DatasetSource(**source.model_dump()) for source in manifest.sources],
            how_to_get=manifest.how_to_get,
            changes=manifest.changes,
            known_issues=manifest.known_issues,
            use=manifest.use,
            splits=opened.splits if opened else [],
            fingerprint=opened.fingerprint if opened else manifest.fingerprint,
        )

    @router.get("/{name}/card")
    def get_dataset_card(name: DatasetName) -> DatasetCard:
        """The data card; the first time, lengths, counts and samples follow as soon as the files were looked into."""
        markdown, complete = cards.get(_known(name, settings))
        return DatasetCard(name=name, markdown=text(markdown, 200_000), complete=complete)

    @router.get("/{name}/rows")
    def list_dataset_rows(name: DatasetName, asked: Annotated[RowAsked, Query()]) -> Listed[DatasetRow]:
        """Items of a split in order; a search looks through at most 5,000 items for one page."""
        opened = registry.open(_known(name, settings), settings)
        split = asked.split or next(iter(opened.splits), "")
        of = f"rows {opened.manifest.id} {split} {asked.search or ''}"
        start = paging.place(asked.cursor, of, int)
        return reader.page(opened, split, asked, asked.start if start is None else start, of)

    return router


def _known(name: str, settings: Settings) -> str:
    """The name, if it is one of a dataset; a path is none.

    Raises:
        UnknownNameError: it is none.
    """
    known = registry.names(settings)
    if name.partition("@")[0] not in known:
        raise UnknownNameError("dataset", name, known)
    return name


def _manifest(name: str, settings: Settings) -> Manifest:
    """What is known of a dataset; those of the user may change, those that we ship do not."""
    if name.partition("@")[0] in registry.added(settings):
        return registry.describe(name, settings)
    return _shipped(name, settings)


@lru_cache(maxsize=200)
def _shipped(name: str, settings: Settings) -> Manifest:
    return registry.describe(name, settings)


def _summary(manifest: Manifest, settings: Settings) -> DatasetSummary:
    added, generated = registry.added(settings), find.names(registry.GENERATED)
    origin: Literal["own", "generated", "public"]
    origin = "own" if manifest.name in added else "generated" if manifest.name in generated else "public"
    here = origin == "generated" or registry.at_hand(manifest, settings) is not None
    return DatasetSummary(
        name=manifest.name,
        version=manifest.version,
        kind=manifest.kind,
        description=manifest.description,
        licence=manifest.licence,
        bytes=manifest.bytes,
        origin=origin,
        at_hand=here,
    )


class Reader:
    """Reads pages of splits. It keeps the last ones, and where they ended, so that the next does not start over."""

    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[Any, ...], Listed[DatasetRow]] = OrderedDict()
        self._held: OrderedDict[tuple[str, str, int], Iterator[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, opened: Dataset, split: str, asked: RowAsked, start: int, of: str) -> Listed[DatasetRow]:
        """Items from an index on."""
        if not opened.splits:
            raise DatasetError(
                f"{opened.manifest.id} has no splits: its files are read by the systems that use them."
            )
        key = (opened.fingerprint, split, start, asked.limit, asked.search)
        with self._lock:
            known = self._pages.get(key)
        if known is None:
            known = self._read(opened, split, asked, start, of)
            with self._lock:
                self._pages[key] = known
                while len(self._pages) > PAGES:
                    self._pages.popitem(last=False)
        return known

    def _read(self, opened: Dataset, split: str, asked: RowAsked, start: int, of: str) -> Listed[DatasetRow]:
        items = self._take(opened, split, start)
        found: list[DatasetRow] = []
        place, wanted = start, (asked.search or "").lower()
        for item in islice(items, SEARCHED if wanted else asked.limit):
            row = _row(place, item)
            place += 1
            if not wanted or wanted in row.model_dump_json().lower():
                found.append(row)
            if len(found) == asked.limit:
                break
        after = next(items, None)
        if after is None:
            return Listed[DatasetRow](object="list", data=found, next_cursor=None)
        self._keep((opened.fingerprint, split, place), chain([after], items))
        return Listed[DatasetRow](object="list", data=found, next_cursor=paging.cursor_at(place, of))

    def _take(self, opened: Dataset, split: str, start: int) -> Iterator[Any]:
        with self._lock:
            held = self._held.pop((opened.fingerprint, split, start), None)
        return _items(opened.shards(split), start) if held is None else held

    def _keep(self, key: tuple[str, str, int], items: Iterator[Any]) -> None:
        with self._lock:
            self._held[key] = items
            while len(self._held) > HELD:
                self._held.popitem(last=False)


def _items(shards: list[Shard], start: int) -> Iterator[Any]:
    """Documents, conversations or rows from an index on; those before it are passed over unread where they can be."""
    for shard in shards:
        if shard.converse is not None:
            items: Iterator[Any] = shard.conversations(0)
        else:
            items = shard.read(0)
        for item in items:
            if start > 0:
                start -= 1
            elif isinstance(item, Item):
                yield item.text() if shard.kind == "text" else item.row()
            else:
                yield item


def _row(place: int, item: Any) -> DatasetRow:
    if isinstance(item, str):
        return DatasetRow(index=place, text=text(item), row=None)
    return DatasetRow(index=place, text=None, row=clean(item if isinstance(item, dict) else item.to_openai()))
