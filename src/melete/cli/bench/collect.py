"""Read what the gateway and its sources have recorded into the store, now."""

from __future__ import annotations

import click


@click.command()
@click.option("--spend-logs", metavar="URL", help="Also read LiteLLM's own log from its PostgreSQL database.")
@click.option("--again", is_flag=True, help="Then compute the rows of all requests anew from their events.")
def command(spend_logs: str | None, again: bool) -> None:
    """Read what the gateway and its sources have recorded into the store, now.

    The gateway does this by itself each second while it is up. Reading twice changes nothing.
    """
    from melete import settings
    from melete.gateway.collectors import spool

    found = settings.load()
    collected = spool.collect(found)
    new = collected.ingested
    click.echo(f"spool: {_count(new.events, 'new event')}, {_count(new.requests, 'request')}")
    if collected.interrupted:
        click.echo(f"spool: {_count(collected.interrupted, 'request')} ended as interrupted")
    if collected.bad_lines:
        click.echo(
            f"spool: {_count(collected.bad_lines, 'line')} could not be read and were left out", err=True
        )
    if spend_logs:
        from melete.gateway.collectors import spend_logs as logs

        read = logs.collect(found, spend_logs)
        click.echo(
            f"spend logs: {_count(read.new, 'new row')}, {read.known} known, {read.foreign} of no session of ours"
        )
    if again:
        from melete.gateway.ingest import recompute
        from melete.store.database import connect

        with connect(found.database) as connection:
            click.echo(f"again: {_count(recompute(connection), 'request')}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
