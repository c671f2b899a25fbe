"""Write a small bench folder that works, to change into one's own."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("bench"))
def command(folder: Path) -> None:
    """Write a small bench folder that works: two scripted models, two questions, an experiment.

    FOLDER is ./bench by default, where it is found by itself; anywhere else set MELETE_BENCH to it. Files that are
    there already stay as they are.
    """
    from melete import settings
    from melete.bench import init

    written, kept = init.write(settings.load(), folder)
    for path in written:
        click.echo(f"wrote {path}")
    for path in kept:
        click.echo(f"kept  {path}, which was there")
    click.echo("Next:")
    if folder != Path("bench"):
        click.echo(f"  export MELETE_BENCH={folder.absolute()}")
    click.echo("  melete bench validate")
    click.echo("  melete bench run first_steps")
