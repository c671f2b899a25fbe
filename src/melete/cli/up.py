"""Start the server and a worker in the background."""

from __future__ import annotations

import click


@click.command("up")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address; all but loopback need a token."
)
@click.option(
    "--port", default=8675, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option(
    "--model", "models", multiple=True, metavar="REF",
    help="Serve this model too, as `melete serve --model`; may be repeated. [default: none]",
)  # fmt: skip
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(0, 64), help="Workers of the queue."
)
@click.option("--gpus", default="auto", show_default=True, help="GPUs that workers use: auto, none, or 0,1.")
@click.option(
    "--cpu-slots", default=1, show_default=True, type=click.IntRange(0),
    help="Processes on the CPU at once, for each worker.",
)  # fmt: skip
@click.option(
    "--grace-s", default=120.0, show_default=True, type=click.FloatRange(0),
    help="Seconds that a process gets to save a checkpoint when it is to stop.",
)  # fmt: skip
@click.option("--foreground", is_flag=True, help="Stay in the foreground, for systemd and containers.")
@click.option("--systemd", is_flag=True, help="Print a systemd unit that does this, and end.")
def command(
    host: str,
    port: int,
    models: tuple[str, ...],
    workers: int,
    gpus: str,
    cpu_slots: int,
    grace_s: float,
    foreground: bool,
    systemd: bool,
) -> int:
    """Start the server and a worker in the background; they live on when the terminal is closed.

    Whatever of them ends is started again. Stop them with `melete down`, look with `melete status`.
    """
    from melete import settings
    from melete.cli import _first_token
    from melete.jobs import background, lab
    from melete.jobs.lab import Plan

    configured = settings.load()
    plan = Plan(host, port, models, workers, gpus, cpu_slots, grace_s)
    if systemd:
        click.echo(background.unit(configured, plan), nl=False)
        return 0
    if lab.alive(configured) is None:
        _first_token.make(configured, host)
    if foreground:
        return background.serve(configured, plan)
    now, before = background.up(configured, plan)
    click.echo(f"Melete {'was up already' if before else 'is up'}, at {now.plan.url}")
    click.echo("  Submit  melete jobs submit FILE")
    click.echo("  Look    melete status")
    click.echo("  Stop    melete down")
    return 0
