"""`melete gateway metrics`: our page of metrics alone, for a place where the gateway runs in a container of its own."""

from __future__ import annotations

import click


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=9464, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
def command(host: str, port: int) -> None:
    """Serve our page of metrics for Prometheus, read from the database, until Ctrl-C.

    A gateway that is up serves one by itself, see `melete gateway status`. The page asks for no token and holds no
    secret: names of variants, models and providers, and figures.
    """
    import signal

    from melete import settings
    from melete.gateway import exporter
    from melete.supervision import StopRequest

    stop = StopRequest()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.set)
    with exporter.serve(settings.load(), port, host=host) as page:
        click.echo(f"Metrics at {page.url}")
        stop.wait()
