"""Stop the server and the workers that `melete up` started."""

from __future__ import annotations

import click


@click.command("down")
def command() -> None:
    """Stop the server and the workers that `melete up` started.

    Processes of jobs save a checkpoint first and go back into the queue; they continue after the next `melete up`.
    """
    from melete import settings
    from melete.jobs import background

    stopped = background.down(settings.load())
    click.echo("Melete is down." if stopped else "Melete was not up.")
