"""Compare what the gateway's witnesses counted: our requests, LiteLLM's log, and Prometheus."""

from __future__ import annotations

import click


@click.command()
@click.option("--prometheus", metavar="URL", help="Also read the counters of a Prometheus server.")
@click.option(
    "--hours", default=24.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="Window."
)
@click.option("--json", "as_json", is_flag=True, help="Print the lines as JSON.")
def command(prometheus: str | None, hours: float, as_json: bool) -> None:
    """Compare what the gateway's witnesses counted: our requests, LiteLLM's log, and Prometheus.

    Our rows are what reports are made of; every other count stands beside them and is never added. Each difference is
    named. Figures read from Prometheus are kept as rollups of the scope `source`.
    """
    import json
    import time
    from dataclasses import asdict

    from melete import settings
    from melete.cli import _show
    from melete.gateway import reconcile
    from melete.gateway.collectors import prometheus as counters
    from melete.gateway.collectors import spool
    from melete.store.database import connect

    configured = settings.load()
    until_s = time.time()
    since_s = until_s - hours * 3600
    readings = counters.read(prometheus, since_s, until_s) if prometheus else []
    spool.collect(configured)
    with connect(configured.database) as connection:
        counters.keep(connection, readings)
        lines = reconcile.reconcile(connection, readings, since_s, until_s)
    if as_json:
        rows = [{**asdict(line), "difference": line.difference, "sentence": line.sentence} for line in lines]
        click.echo(json.dumps(rows, indent=1))
        return
    if not lines:
        click.echo(f"No requests in the last {hours:g} hours.")
        return
    head = ("of", "name", "witness", "ours", "cannot see", "counted", "difference")
    cells = [
        (line.subject, line.name, line.source, f"{line.ours:,}", f"{sum(line.unseen.values()):,}",
         f"{line.seen:,.0f}", f"{line.difference:+,.0f}" if abs(line.difference) >= 0.5 else "0")
        for line in lines
    ]  # fmt: skip
    _show.table(head, cells, head[3:])
    for line in lines:
        if abs(line.difference) >= 0.5:
            click.echo(line.sentence)
