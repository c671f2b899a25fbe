"""Work through the queue of jobs on this machine."""

from __future__ import annotations

import click


@click.command("worker")
@click.option(
    "--gpus", default="auto", show_default=True, metavar="NUMBERS",
    help="GPUs to use, one slot each: auto, none, or numbers such as 0,1.",
)  # fmt: skip
@click.option(
    "--cpu-slots", default=1, show_default=True, type=click.IntRange(0), help="Processes on the CPU at once."
)
@click.option(
    "--executor", "executors", multiple=True, metavar="NAME",
    help="Carry out only what asks for this executor; may be repeated. [default: all that can be used here]",
)  # fmt: skip
@click.option(
    "--grace-s", default=120.0, show_default=True, type=click.FloatRange(0),
    help="Seconds that a process gets to save a checkpoint before it is killed.",
)  # fmt: skip
@click.option("--drain", is_flag=True, help="End when nothing is left that this worker could do.")
def command(gpus: str, cpu_slots: int, executors: tuple[str, ...], grace_s: float, drain: bool) -> None:
    """Work through the queue of jobs on this machine, in the foreground.

    Each process of a job runs in a child of its own. Ctrl-C lets them save a checkpoint and puts them back into the
    queue; a second one kills them. `melete up` starts a worker in the background.
    """
    from melete import settings
    from melete.jobs import worker

    options = worker.Options(gpus, cpu_slots, executors or None, grace_s, drain)
    worker.work(settings.load(), options, click.echo)
