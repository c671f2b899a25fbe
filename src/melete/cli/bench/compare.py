"""Compare two variants on the task cards that both played: intervals, effect sizes, plain sentences."""

from __future__ import annotations

from typing import Any

import click

ANSWERS = ("success", "cost_per_solved", "tokens_per_solved", "tool_reliability", "latency")
"""Metrics that are also said in a sentence."""


@click.command()
@click.argument("before")
@click.argument("after")
@click.option("--experiment", help="Only sessions of this experiment; the newest that has both by default.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(before: str, after: str, experiment: str | None, as_json: bool) -> None:
    """Compare two variants on the task cards that both played.

    BEFORE and AFTER are names of variants, or NAME@DIGEST for one version of one. Sessions are paired by task card and
    attempt; what has no partner is left out and said.
    """
    from melete import settings as all_settings
    from melete.bench import report as reports
    from melete.gateway.collectors import spool
    from melete.store.database import connect

    settings = all_settings.load()
    spool.collect(settings)
    with connect(settings.database) as connection:
        report = reports.of_variants(connection, before, after, experiment)
    if as_json:
        click.echo(reports.to_text(report), nl=False)
        return
    show(report, sentences=ANSWERS)


def show(report: dict[str, Any], sentences: tuple[str, ...]) -> None:
    """Prints the comparisons of a report: a line that says what they come to, a table, sentences, what was left out."""
    from melete.bench import tables
    from melete.cli import _show

    for found in report["comparisons"]:
        table = tables.comparison(report, found)
        click.echo(f"{tables.lead(report, found)}\n")
        _show.table(table.head, table.rows, table.right)
        click.echo()
        for line in (*tables.sentences(report, found, sentences), *found["left_out"]):
            click.echo(line)
        click.echo()
    for note in report["notes"]:
        click.echo(note)
