"""Workers: who carries out the processes of the queue, with which slots."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from melete.api import paging, queue_here
from melete.api.job_records import Worker
from melete.api.store import Asked, Listed, Store


def routes(store: Store) -> APIRouter:
    """A list by id."""
    router = APIRouter()

    @router.get("")
    def list_workers(asked: Annotated[Asked, Query()]) -> Listed[Worker]:
        """List the workers of this home that live; `melete up` starts one, `melete worker` too."""
        found: list[Worker] = []
        if queue_here.has_queue(store):
            with store.queue() as queue:
                found = queue_here.workers(queue)
        return paging.page(found, lambda one: one.id, of="workers", limit=asked.limit, cursor=asked.cursor)

    return router
