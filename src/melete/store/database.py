"""Opens the database of a URL at its newest schema; one writer at a time upgrades, the others wait.

Alembic is loaded only when the schema is not the newest, which is the name of the last file in `migrations/versions`.
Passwords in a URL never reach a message.
"""

from __future__ import annotations

import fcntl
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Engine, FromClause, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from melete import find
from melete.errors import ConfigError, DiskFullError, MissingExtraError, StorageError

Item = TypeVar("Item")
WAIT_S = 30
FULL = ("disk is full", "No space left on device")
"""What SQLite and PostgreSQL say where there is no space."""
UPGRADE_LOCK = 5_104_711
"""Key of the PostgreSQL advisory lock that is held while the schema is upgraded."""


def newest_revision() -> str:
    """Name of the newest migration."""
    return find.names("melete.store.migrations.versions")[-1]


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    """An engine for the database, upgraded first if need be; for who makes more than one transaction.

    Raises:
        ConfigError: the URL is not one of a database that is supported.
        DiskFullError: there is no space for the database.
        StorageError: the database cannot be reached, read or written, or a newer Melete has changed it.
    """
    engine = open_engine(url)
    try:
        found = revision(engine)
        if found != newest_revision():
            _refuse_newer(engine, found)
            upgrade(engine)
        yield engine
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        shown = engine.url.render_as_string(hide_password=True)
        if any(full in cause for full in FULL):
            raise DiskFullError(
                f"The disk of the database {shown} is full.",
                next_step="Free some space, then try again; what was stored before is kept.",
            ) from error
        raise StorageError(
            f"The database {shown} cannot be used: {cause}",
            next_step="Check MELETE_DATABASE; the runs themselves are safe in their folders.",
        ) from error
    finally:
        engine.dispose()


@contextmanager
def connect(url: str) -> Iterator[Connection]:
    """A transaction on the database, upgraded first if need be.

    Raises:
        ConfigError: the URL is not one of a database that is supported.
        StorageError: the database cannot be reached, read or written, or a newer Melete has changed it.
    """
    with opened(url) as engine, engine.begin() as connection:
        yield connection


def open_engine(url: str) -> Engine:
    """An engine for a SQLite or PostgreSQL URL.

    Raises:
        ConfigError: any other URL.
        MissingExtraError: PostgreSQL without its driver.
    """
    for old in ("postgres://", "postgresql://"):
        if url.startswith(old):
            url = "postgresql+psycopg://" + url.removeprefix(old)
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ArgumentError(parsed.get_backend_name())
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed)
        return sqlalchemy.create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 5})
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(
            "MELETE_DATABASE is not the URL of a database that Melete can use.",
            allowed="Allowed: sqlite:///path/to/file.db and postgresql://user@host/name.",
        ) from error
    except ModuleNotFoundError as error:
        raise MissingExtraError("psycopg", "postgres") from error


def absolute(url: str) -> str:
    """A URL that means the same database from every folder."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return url
    return f"sqlite:///{Path(str(parsed.database)).absolute()}"


def insert_new(connection: Connection, table: FromClause, rows: list[dict[str, Any]]) -> None:
    """Inserts rows; one whose primary key is there already is left as it stands."""
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), rows)


def upsert(connection: Connection, table: FromClause, rows: list[dict[str, Any]]) -> None:
    """Inserts rows; one whose primary key is there already takes the new values. All rows have the same columns."""
    if rows:
        keys = [column.name for column in table.primary_key]
        statement = _insert(connection, table)
        changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)


def chunks(items: Sequence[Item], size: int = 500) -> Iterator[Sequence[Item]]:
    """Parts of a list, as many as one statement may hold."""
    return (items[at : at + size] for at in range(0, len(items), size))


def _insert(connection: Connection, table: FromClause) -> Any:
    """`INSERT` of the connection's dialect, which knows what to do on a conflict."""
    return importlib.import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert(table)


def revision(engine: Engine) -> str | None:
    """The schema's revision, or None for an empty database."""
    with engine.connect() as connection:
        if not sqlalchemy.inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(sqlalchemy.text("SELECT version_num FROM alembic_version"))
        return found


def _refuse_newer(engine: Engine, found: str | None) -> None:
    if found is not None and found not in find.names("melete.store.migrations.versions"):
        raise StorageError(
            f"The database {engine.url.render_as_string(hide_password=True)} is at {found}, newer than this program.",
            allowed=f"This program knows the schema up to {newest_revision()}.",
            next_step="Use the newer Melete, or set MELETE_DATABASE to another database.",
        )


def upgrade(engine: Engine) -> None:
    """Brings the schema to the newest revision; whoever comes second finds it done."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with _alone(engine), engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Holds a lock that one process at a time can hold."""
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({UPGRADE_LOCK})"))
            yield  # the lock ends with its connection
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_unlock({UPGRADE_LOCK})"))
    elif engine.url.database in (None, "", ":memory:"):
        yield
    else:
        with Path(f"{engine.url.database}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _sqlite(url: sqlalchemy.URL) -> Engine:
    if url.database not in (None, "", ":memory:"):
        try:
            Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"Cannot make the folder of the database ({error}).") from error
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": WAIT_S})

    @event.listens_for(engine, "connect")
    def wal(connection: sqlalchemy.engine.interfaces.DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    return engine
