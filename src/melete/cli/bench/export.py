"""Export an experiment as a bundle that another machine imports to the same numbers."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("experiment")
@click.option(
    "--bundle", type=click.Path(path_type=Path, dir_okay=False), help="File; ./EXPERIMENT.zip by default."
)
@click.option(
    "--content", is_flag=True, help="Also task cards, and prompts and answers where they were kept."
)
def command(experiment: str, bundle: Path | None, content: bool) -> None:
    """Export an experiment as a bundle that another machine imports to the same numbers.

    It holds configs, sessions, requests, figures and the report, with checksums, and no key, note or path.
    """
    from melete import settings as all_settings
    from melete.bench import artifacts
    from melete.bench import bundle as bundles
    from melete.gateway.collectors import spool
    from melete.store.database import connect

    settings = all_settings.load()
    spool.collect(settings)
    path = bundle or Path(f"{experiment.partition('@')[0].replace('/', '_')}.zip")
    with connect(settings.database) as connection:
        made = bundles.write(connection, experiment, path, content=content)
        artifacts.keep(connection, "bundle", made.path, made.experiment)
    rows = ", ".join(
        f"{count:,} {name.partition('.')[0]}" for name, count in made.rows.items() if name != "report.json"
    )
    click.echo(f"Wrote {made.path}: {rows}.")
    click.echo(f"sha256 {made.sha256}")
