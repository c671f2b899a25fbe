"""Run the processes of a job file in order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from melete.jobs.file import JobFile
    from melete.records import JobRecord, JobStep
    from melete.settings import Settings


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check the whole file, show each resolved config, and end.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print JSON.")
@click.option("--limit-batches", type=click.IntRange(1), help="The most steps per loop of each process.")
@click.option("--resume", is_flag=True, help="Continue the newest job of this file where it ended.")
def command(file: Path, dry_run: bool, as_json: bool, limit_batches: int | None, resume: bool) -> int:
    """Run the processes of a job FILE (YAML or JSON) in order, in the foreground.

    The whole file is checked before anything runs. `melete schema` prints what a job file may hold.
    """
    import os

    from melete import settings as all_settings
    from melete.errors import ConfigError
    from melete.jobs import file as job_file
    from melete.jobs import run as jobs
    from melete.records import RunState
    from melete.runs import report as reports

    settings = all_settings.load()
    if as_json and not dry_run:
        raise ConfigError(
            "--json goes with --dry-run.", next_step="How a job went is in its folder, jobs/ID/job.json."
        )
    if dry_run:
        _print_plans(job_file.read(file), settings, as_json)
        return 0
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "A job runs in one process, not under torchrun.",
            next_step="Start each of its processes under torchrun, such as: torchrun -m melete llm pretrain",
        )

    def announce(number: int, step: JobStep) -> None:
        click.echo(f"[{number + 1}/{len(record.steps)}] {step.name}: {step.process}")

    begin = jobs.resume if resume else jobs.start
    path, record = begin(settings, file, limit_batches)
    try:
        jobs.run_steps(settings, path, record, announce)
    finally:
        reports.write_job(path, record, settings.runs)
        _print_end(settings, path, record)
    if record.state is RunState.SUCCEEDED:
        _print_next(job_file.read(file).next)
    return 130 if record.state is RunState.STOPPED else 0


def _print_plans(job: JobFile, settings: Settings, as_json: bool) -> None:
    from melete.cli import _plan, _show
    from melete.jobs.plan import plan

    labels = [step.label for step in job.processes]
    plans = [
        (step.label, plan(step.process, step.config, settings, frozenset(labels[:number])))
        for number, step in enumerate(job.processes)
    ]
    if as_json:
        _show.print_json([_plan.as_json(made, label) for label, made in plans])
        return
    for number, (label, made) in enumerate(plans):
        if number:
            click.echo()
        _plan.print_plan(made, label)


def _print_end(settings: Settings, path: Path, record: JobRecord) -> None:
    """The table of runs with the time each took, and where the report is."""
    from melete.cli import _show
    from melete.runs import folder
    from melete.runs.progress import duration

    runs = [(step, folder.read(settings.runs / step.run)) for step in record.steps if step.run is not None]
    total_s = sum(sum(run.seconds.values()) for _, run in runs) or 1.0
    rows = []
    for step, run in runs:
        took_s = sum(run.seconds.values())
        most = sorted(run.seconds.items(), key=lambda item: -item[1])[:3]
        where = ", ".join(f"{name} {duration(seconds)}" for name, seconds in most if seconds >= 0.05)
        rows.append((step.name, run.id, run.state, duration(took_s), f"{took_s / total_s:.0%}", where))
    click.echo()
    _show.table(("step", "run", "state", "time", "share", "most of it"), rows, right=("time", "share"))
    click.echo(f"\njob {record.id} {record.state}; report: {path / 'report.html'}")


def _print_next(lines: list[str]) -> None:
    """What the job file says to try next."""
    if lines:
        click.echo("\nTry next:")
    for line in lines:
        click.echo(f"  {line}")
