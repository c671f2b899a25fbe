"""Import a bundle that `melete bench export` wrote, here or elsewhere."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def command(file: Path) -> None:
    """Import a bundle that `melete bench export` wrote, here or elsewhere.

    All of it is checked first; a bundle that is torn or was changed changes nothing here. Importing twice does nothing.
    """
    from melete import settings as all_settings
    from melete.bench import unbundle
    from melete.store.database import connect

    with connect(all_settings.load().database) as connection:
        done = unbundle.read(connection, file)
    if not done.new:
        click.echo(f"Everything in {file} is here already.")
    else:
        click.echo(f"Imported {done.experiment}: {done.sessions:,} sessions, {done.requests:,} requests.")
    if done.differing:
        click.echo(
            f"This version computes otherwise than the bundle says: {', '.join(done.differing)}.", err=True
        )
    click.echo(f"See it with: melete bench report {done.experiment.rpartition('@')[0]}")
