"""A real PostgreSQL for tests, and the fixture `store` that gives a test an empty database of both kinds."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy

from melete.settings import Settings
from melete.store import database


def server_programs() -> Path | None:
    """The newest folder of Debian's PostgreSQL programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


class Server:
    """A PostgreSQL server of our own that can be stopped and started again; its socket lies in `place`."""

    def __init__(self, place: Path, control: list[str | Path], options: str) -> None:
        self.url = f"postgresql://melete@/postgres?host={place}"
        self.place = place
        self._control = control
        self._options = options

    def start(self) -> None:
        """Starts it and waits until it answers."""
        start = [*self._control, "-l", self.place / "log", "-o", self._options, "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd=self.place)

    def stop(self) -> None:
        """Stops it at once, as a crash does."""
        stop = [*self._control, "-m", "immediate", "stop"]
        subprocess.run(stop, check=True, capture_output=True, cwd=self.place)


@contextmanager
def server() -> Iterator[Server]:
    """A PostgreSQL on a socket in a folder of its own, run by an unprivileged user; skips where there is none."""
    programs = server_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server programs are not installed (Debian: apt-get install postgresql)")
    as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
    place = Path(tempfile.mkdtemp(prefix="melete-pg-"))
    try:
        if as_user:
            shutil.chown(place, "nobody", "nogroup")
        data, options = place / "data", f"-c listen_addresses='' -k {place} -c fsync=off"
        make = [
            *as_user,
            programs / "initdb",
            "-D",
            data,
            "-U",
            "melete",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        subprocess.run(make, check=True, capture_output=True, cwd=place)
        control = [*as_user, programs / "pg_ctl", "-D", data, "-w"]
        running = Server(place, control, options)
        running.start()
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(place)


def empty(url: str) -> None:
    """Drops all that a database holds."""
    engine = database.open_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP SCHEMA public CASCADE"))
        connection.execute(sqlalchemy.text("CREATE SCHEMA public"))
    engine.dispose()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server that the whole session shares."""
    with server() as running:
        yield running.url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, home: Settings) -> Settings:
    """Settings of a home whose database is empty."""
    if request.param == "sqlite":
        return home
    url = str(request.getfixturevalue("postgres"))
    empty(url)
    return replace(home, database=url)
