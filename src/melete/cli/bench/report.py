"""Report an experiment: in the terminal, or as HTML, Markdown, JSON, CSV or Parquet."""

from __future__ import annotations

from pathlib import Path

import click

from melete import find

FORMATS = click.Choice(find.names("melete.bench.exports"))


@click.command()
@click.argument("experiment")
@click.option(
    "--format", "formats", type=FORMATS, multiple=True, help="Write a file; may be given more than once."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Its name, or a folder; ./EXPERIMENT.ENDING by default."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; --format json writes a file.")
def command(experiment: str, formats: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Report an experiment: all variants, each compared with the baseline.

    EXPERIMENT is a name, then all its versions count, or NAME@DIGEST. Without --format it is printed. A report holds no
    prompt, answer, path or key.
    """
    from melete import settings as all_settings
    from melete.bench import artifacts, exports, report, rollups, tables
    from melete.cli import _show
    from melete.cli.bench.compare import ANSWERS, show
    from melete.gateway.collectors import spool
    from melete.store.database import connect

    settings = all_settings.load()
    spool.collect(settings)
    with connect(settings.database) as connection:
        made = report.of_experiment(connection, experiment)
        rollups.refresh_experiment(connection, made["experiment"]["versions"])
    if as_json:
        _show.print_json(made)
        return
    if not formats:
        for table in (tables.counts(made), tables.variants(made)):
            _show.table(table.head, table.rows, table.right)
            click.echo()
        show(made, ANSWERS)
        return
    for name in formats:
        path = _place(out, made["title"], exports.suffix(name), several=len(formats) > 1)
        exports.write(name, made, path)
        with connect(settings.database) as connection:
            artifacts.keep(connection, f"report.{name}", path, made["experiment"]["id"])
        click.echo(f"Wrote {path}")


def _place(out: Path | None, title: str, suffix: str, *, several: bool) -> Path:
    """The file that was named, or one named after the experiment in the folder that was named."""
    if out is not None and not several and not out.is_dir():
        return out
    return (out or Path()) / f"{title.replace('/', '_')}{suffix}"
