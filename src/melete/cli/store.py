"""Upgrade the database or rebuild it from the run folders."""

from __future__ import annotations

import click

from melete.cli._group import Group


@click.group(cls=Group)
def command() -> None:
    """Upgrade the database or rebuild it from the run folders.

    Of runs it is an index that can be rebuilt from their folders. Of the sessions of `melete bench` it is all there
    is: keep it, or export them.
    """


@command.command()
def rebuild() -> None:
    """Read all run folders of this home into the database."""
    from melete import settings
    from melete.store import index

    count = index.rebuild(settings.load())
    click.echo(f"indexed {count} {'run' if count == 1 else 'runs'}")


@command.command()
def upgrade() -> None:
    """Bring the database to the newest schema."""
    from melete import settings
    from melete.store import database

    with database.connect(settings.load().database):
        click.echo(f"the database is at {database.newest_revision()}")
