"""What the routes read from: pages and single rows of the listings, over one engine that can only read.

A connection is taken for one request and given back. SQLite and PostgreSQL are told that nothing will be written, so a
route cannot change the store by mistake; what computes rollups says so (`keep`), and so does what people ask of jobs
(`queue_to_write`). A database that is away is answered with 503.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError

from melete.errors import StorageError, UnknownNameError
from melete.gateway import queries
from melete.gateway.queries import MOST_ITEMS, Listing
from melete.settings import Settings
from melete.store import database, index

if TYPE_CHECKING:
    from melete.jobs.queue import Queue

Item = TypeVar("Item")
Record = TypeVar("Record", bound=BaseModel)
PLAIN = r"^[^\x00-\x1f\x7f]*$"
Text = Annotated[str, Field(max_length=200, pattern=PLAIN)]
"""A filter's text: a name or an id."""
Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False, examples=[1_795_200_000.0])]
"""Seconds since the epoch."""


class Asked(BaseModel):
    """What every list can be asked: how many, and from where on."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=MOST_ITEMS, description="Items at most.")
    cursor: str | None = Field(
        None,
        max_length=2_000,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="next_cursor of the page before.",
        examples=["WyIyYzRhYjYxMGYxZDgiLCA1MF0"],
    )


class Listed(BaseModel, Generic[Item]):
    """One page of a list."""

    object: str = Field("list", description="Always `list`.")
    data: list[Item]
    next_cursor: str | None = Field(
        None,
        description="Asks for the page after this one, with the same filters; null at the end. A page may hold fewer "
        "items than asked for, even none, and still have one.",
    )


class Store:
    """Reads the database of some settings.

    Args:
        settings: where the database is; it is upgraded before the first read if need be.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for one request.

        Raises:
            StorageError: the database cannot be used.
        """
        with _told(), self._opened().connect() as connection:
            yield connection

    @contextmanager
    def queue(self) -> Iterator[Queue]:
        """The queue of this home, which can only be read.

        Raises:
            StorageError: the database cannot be used.
        """
        from melete.jobs.queue import Queue

        with _told():
            yield Queue(self.settings, self._opened())

    @contextmanager
    def queue_to_write(self) -> Iterator[Queue]:
        """The queue of this home, for what people ask of it.

        Raises:
            StorageError: the database cannot be used, or is of a newer version.
        """
        from melete.jobs.queue import opened

        with opened(self.settings) as queue:
            yield queue

    @contextmanager
    def keep(self) -> Iterator[Connection]:
        """A transaction for what computes figures and keeps them, such as rollups that are missing.

        Raises:
            StorageError: the database cannot be used.
        """
        with database.connect(self.settings.database) as connection:
            yield connection

    def page(self, listing: Listing, asked: Asked, record: type[Record], **of: str) -> Listed[Record]:
        """One page of a listing as records; the fields of `asked` beyond the paging are its filters, and so is `of`."""
        wanted = {**asked.model_dump(exclude={"limit", "cursor"}, exclude_none=True), **of}
        with self.read() as connection:
            found = queries.page(connection, listing, wanted, limit=asked.limit, cursor=asked.cursor)
        data = [record.model_validate(item) for item in found.items]
        return Listed[Any](object="list", data=data, next_cursor=found.next_cursor)

    def one(self, listing: Listing, key: Mapping[str, Any], record: type[Record]) -> Record:
        """The row of a key as a record.

        Raises:
            UnknownNameError: there is none.
        """
        with self.read() as connection:
            found = queries.one(connection, listing, key)
            if found is None:
                known = [
                    item[listing.order[-1]] for item in queries.page(connection, listing, {}, limit=8).items
                ]
                raise UnknownNameError(listing.noun, ", ".join(map(str, key.values())), map(str, known))
        return record.model_validate(found)

    def close(self) -> None:
        """Gives the connections back."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None

    def _opened(self) -> Engine:
        with self._lock:
            if self._engine is None:
                with database.connect(self.settings.database):
                    pass  # brings the schema to the newest revision
                index.complete(self.settings)
                self._engine = _read_only(database.open_engine(self.settings.database))
            return self._engine


@contextmanager
def _told() -> Iterator[None]:
    """What the database's driver says, as an error of ours."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StorageError(
            f"The database cannot be read now ({type(error).__name__}).",
            next_step="Try again in a moment.",
        ) from error


def _read_only(engine: Engine) -> Engine:
    """The same engine, whose connections refuse to write."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(postgresql_readonly=True)

    @event.listens_for(engine, "connect")
    def query_only(connection: Any, _: object) -> None:
        connection.execute("PRAGMA query_only=ON").close()

    return engine
