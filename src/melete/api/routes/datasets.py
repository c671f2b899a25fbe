"""Datasets: those of this home, those made here and the known public sets, with their rows, images and episodes."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from melete import find
from melete.api import dataset_images, dataset_rows, paging
from melete.api.cards import Cards
from melete.api.clean import text
from melete.api.dataset_images import ImageAsked, Index
from melete.api.dataset_rows import Reader
from melete.api.frames import FrameReader
from melete.api.records import (
    DatasetCard,
    DatasetDetail,
    DatasetEpisode,
    DatasetEpisodeDetail,
    DatasetImage,
    DatasetRow,
    DatasetSource,
    DatasetSummary,
)
from melete.api.store import PLAIN, Asked, Listed, Store, Text
from melete.datasets import card, registry
from melete.datasets.manifest import Manifest
from melete.errors import UnknownNameError
from melete.settings import Settings

DatasetName = Annotated[
    str, Path(max_length=100, pattern=r"^[a-z0-9][a-z0-9_.-]*(@[A-Za-z0-9][A-Za-z0-9_.+-]*)?$",
              description="A name, or name@version.", examples=["stdlib"]),
]  # fmt: skip


TOLD = ("licence_notes", "how_to_get", "changes", "known_issues", "use")
"""Fields that a manifest and an answer have in common."""
PNG: dict[int | str, dict[str, Any]] = {200: {"description": "A PNG file.", "content": {"image/png": {}}}}
IMAGE: dict[int | str, dict[str, Any]] = {200: {"description": "An image.", "content": {"image/*": {}}}}


class DatasetAsked(Asked):
    """Which datasets."""

    kind: Text | None = Field(None, description="text, conversations, rows or files.", examples=["text"])
    at_hand: bool | None = Field(None, description="Only those that can be read here, or only the others.")
    search: Text | None = Field(
        None, min_length=1, description="Only those with this text in name or description.", examples=["chat"]
    )


class RowAsked(Asked):
    """Which rows."""

    split: Text | None = Field(
        None, description="Name of a split; the first one by default.", examples=["train"]
    )
    search: Text | None = Field(
        None, min_length=1, description="Only items with this text, in any case.", examples=["refund"]
    )
    start: int = Field(0, ge=0, le=10**12, description="Index of the first item, where there is no cursor.")


class SplitAsked(BaseModel):
    """Of which split."""

    model_config = ConfigDict(extra="forbid")

    split: Text | None = Field(None, description="The first one by default.", examples=["train"])


FieldPath = Annotated[
    str, Path(max_length=200, pattern=PLAIN, description="Dotted path of a field.", examples=["image"])
]


def routes(store: Store) -> APIRouter:
    """A list by name, one of it, its card, its rows, images and episodes."""
    router, settings, reader = APIRouter(), store.settings, Reader()
    cards = Cards(settings)

    @router.get("")
    def list_datasets(asked: Annotated[DatasetAsked, Query()]) -> Listed[DatasetSummary]:
        """List datasets by name."""
        every = (_summary(_manifest(name, settings), settings) for name in registry.names(settings))
        wanted = (asked.search or "").lower()
        found = [
            one
            for one in every
            if asked.kind in (None, one.kind)
            and asked.at_hand in (None, one.at_hand)
            and wanted in f"{one.name} {one.description}".lower()
        ]
        of = f"datasets {asked.kind} {asked.at_hand} {wanted}"
        return paging.page(found, lambda one: one.name, of=of, limit=asked.limit, cursor=asked.cursor)

    @router.get("/{name}")
    def get_dataset(name: DatasetName) -> DatasetDetail:
        """One dataset."""
        manifest = _manifest(_known(name, settings), settings)
        summary = _summary(manifest, settings)
        opened = registry.open(name, settings) if summary.at_hand else None
        told = {
            **summary.model_dump(),
            **{key: getattr(manifest, key) for key in TOLD},
            "obligations": card.obligations(manifest),
            "sources": [DatasetSource(**source.model_dump()) for source in manifest.sources],
            "splits": opened.splits if opened else [],
            "fingerprint": opened.fingerprint if opened else manifest.fingerprint,
        }
        return dataset_images.detail(told, opened)

    @router.get("/{name}/card")
    def get_dataset_card(name: DatasetName) -> DatasetCard:
        """The data card; the first time, lengths, counts and samples follow as soon as the files were looked into."""
        markdown, complete = cards.get(_known(name, settings))
        return DatasetCard(name=name, markdown=text(markdown, 200_000), complete=complete)

    @router.get("/{name}/rows")
    def list_dataset_rows(name: DatasetName, asked: Annotated[RowAsked, Query()]) -> Listed[DatasetRow]:
        """Items of a split in order. Half a second is read for a page: it may hold few items, or none, and lead on."""
        opened = registry.open(_known(name, settings), settings)
        split = asked.split or next(iter(opened.splits), "")
        of = f"rows {opened.manifest.id} {split} {asked.search or ''}"
        start = paging.place(asked.cursor, of, int)
        return reader.page(
            opened, split, asked.start if start is None else start, of, asked.limit, asked.search
        )

    _add_images(router, settings, reader)
    return router


def _add_images(router: APIRouter, settings: Settings, reader: Reader) -> None:
    seen = FrameReader()

    @router.get("/{name}/rows/{index}/image/{field:path}", response_class=Response, responses=IMAGE)
    def get_dataset_row_image(
        name: DatasetName, index: Index, field: FieldPath, asked: Annotated[SplitAsked, Query()]
    ) -> Response:
        """The image that a row carries in one of its fields: a file of the set, or a `data:` URL; 10 MB at most."""
        opened = registry.open(_known(name, settings), settings)
        split = asked.split or next(iter(opened.splits), "")
        row = dataset_rows.whole(opened, split, index)
        return dataset_images.carried(opened, row if isinstance(row, dict) else {}, field)

    @router.get("/{name}/images")
    def list_dataset_images(name: DatasetName, asked: Annotated[ImageAsked, Query()]) -> Listed[DatasetImage]:
        """List images with their captions; a search reads for half a second for one page."""
        opened = registry.open(_known(name, settings), settings)
        frames = dataset_images.needed(opened)
        of = f"images {opened.manifest.id} {asked.search or ''}"
        begun = paging.place(asked.cursor, of, int)
        start = asked.start if begun is None else begun
        split = dataset_images.captions_of(opened, frames)
        if split is None:
            rows = [DatasetRow(index=at, text=None, row=None) for at in range(start, frames.count)][
                : asked.limit
            ]
            end = start + len(rows)
            more = paging.cursor_at(end, of) if end < frames.count else None
        else:
            page = reader.page(opened, split, start, of, asked.limit, asked.search)
            rows, more = page.data, page.next_cursor
        data = [
            DatasetImage(
                index=row.index,
                image=dataset_images.path_of(name, row.index),
                caption=dataset_images.caption(row.row, row.text),
                row=row.row,
            )
            for row in rows
        ]
        return Listed[DatasetImage](object="list", data=data, next_cursor=more)

    @router.get("/{name}/images/{index}", response_class=Response, responses=PNG)
    def get_dataset_image(name: DatasetName, index: Index) -> Response:
        """One image, or frame, as PNG."""
        opened = registry.open(_known(name, settings), settings)
        return dataset_images.image(seen, dataset_images.needed(opened), index)

    @router.get("/{name}/episodes")
    def list_dataset_episodes(name: DatasetName, asked: Annotated[Asked, Query()]) -> Listed[DatasetEpisode]:
        """List episodes in order, each with a strip of its frames."""
        opened = registry.open(_known(name, settings), settings)
        return dataset_images.episodes(name, dataset_images.needed(opened), asked)

    @router.get("/{name}/episodes/{index}")
    def get_dataset_episode(name: DatasetName, index: Index) -> DatasetEpisodeDetail:
        """One episode with what was observed and done in each step."""
        opened = registry.open(_known(name, settings), settings)
        return dataset_images.episode(name, dataset_images.needed(opened), index)

    @router.get("/{name}/episodes/{index}/strip", response_class=Response, responses=PNG)
    def get_dataset_episode_strip(name: DatasetName, index: Index) -> Response:
        """Eight frames of an episode side by side, as PNG."""
        opened = registry.open(_known(name, settings), settings)
        return dataset_images.film(seen, dataset_images.needed(opened), index)


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
