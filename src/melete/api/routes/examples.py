"""Examples: job files to begin with, those that ship with Melete and those of this home."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from melete.api import here, paging
from melete.api.clean import clean
from melete.api.job_records import Example
from melete.api.store import PLAIN, Asked, Listed, Store
from melete.errors import UnknownNameError

ExampleName = Annotated[
    str, Path(max_length=100, pattern=PLAIN, description="An example's name.", examples=["first-steps"])
]


def routes(store: Store) -> APIRouter:
    """A list by name, and one of it."""
    router = APIRouter()

    @router.get("")
    def list_examples(asked: Annotated[Asked, Query()]) -> Listed[Example]:
        """List job files to begin with; own ones lie in the folder `examples` of the home."""
        return paging.page(
            _every(store), lambda one: one.name, of="examples", limit=asked.limit, cursor=asked.cursor
        )

    @router.get("/{name}")
    def get_example(name: ExampleName) -> Example:
        """One job file to begin with."""
        found = {one.name: one for one in _every(store)}
        if name not in found:
            raise UnknownNameError("example", name, found)
        return found[name]

    return router


def _every(store: Store) -> list[Example]:
    from melete.jobs import examples

    own = store.settings.home / "examples"
    return [
        Example(
            name=name,
            description=clean(examples.description(text), 1_000),
            own=file.parent == own,
            processes=clean(examples.processes(text)),
            text=clean(text, 200_000),
        )
        for name, file in examples.files(store.settings).items()
        if (text := here.text_of(file))
    ]
