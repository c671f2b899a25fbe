"""Submit, list, show, pause, stop, resume and retry jobs of the queue."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from melete.cli._group import Group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from melete.jobs.states import Job, Step
    from melete.settings import Settings

STATES = click.Choice(["queued", "running", "paused", "succeeded", "failed", "stopped"])
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
POLL_S = 0.5


@click.group(cls=Group)
def command() -> None:
    """Submit, list, show, pause, stop, resume and retry jobs of the queue.

    Workers carry them out: `melete up` starts one in the background. JOB is a job's id, the unique beginning of one,
    its name, or `latest`.
    """


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--priority", type=int, default=0, show_default=True, help="Higher goes first.")
@click.option("--limit-batches", type=click.IntRange(1), help="The most steps per loop of each process.")
@JSON
def submit(file: Path, priority: int, limit_batches: int | None, as_json: bool) -> None:
    """Check a job FILE and put it into the queue."""
    from melete import settings
    from melete.cli import _show
    from melete.jobs import outlook
    from melete.jobs.queue import opened

    with opened(settings.load()) as queue:
        job = queue.submit(file, priority=priority, limit_batches=limit_batches)
        alive = outlook.workers(queue.engine, queue.home)
    if as_json:
        _show.print_json(job)
        return
    count = len(job.steps)
    click.echo(f"Job {job.id} is in the queue, with {count} process{'es' * (count > 1)}.")
    for step in job.steps:
        why = outlook.reason(job, step, alive)
        if why is not None and step.state == "queued" and why != "waits for a free slot":
            click.echo(f"  {step.name}: {why}")
    click.echo(f"  Watch  melete jobs logs -f {job.id}")
    click.echo(f"  Stop   melete jobs stop {job.id}")


@command.command("list")
@click.option("--state", type=STATES, help="Only jobs in this state.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The most jobs shown.")
@JSON
def list_jobs(state: str | None, limit: int, as_json: bool) -> None:
    """The newest jobs first."""
    from melete import settings
    from melete.cli import _show
    from melete.jobs.queue import opened

    with opened(settings.load()) as queue:
        jobs = queue.list(state=state, limit=limit)
    if as_json:
        _show.print_json(jobs)
    elif not jobs:
        click.echo("No jobs yet. Put one into the queue with: melete jobs submit FILE")
    else:
        now_s = time.time()
        rows = [
            (
                job.id,
                job.name,
                job.shown_state,
                _progress(job),
                job.priority,
                _show.age(now_s - job.created_s),
            )
            for job in jobs
        ]
        _show.table(
            ("id", "name", "state", "processes", "priority", "age"),
            rows,
            right=("processes", "priority", "age"),
        )


@command.command()
@click.argument("job")
@JSON
def show(job: str, as_json: bool) -> None:
    """One job: its processes, why each waits, what became of it."""
    from melete import settings
    from melete.cli import _show
    from melete.jobs import outlook
    from melete.jobs.queue import opened

    configured = settings.load()
    with opened(configured) as queue:
        found = queue.get(job)
        alive = outlook.workers(queue.engine, queue.home)
    reasons = {step.name: outlook.reason(found, step, alive) for step in found.steps}
    if as_json:
        _show.print_json({"job": found, "waits": reasons})
        return
    rows: list[tuple[str, Any]] = [("job", found.id), ("name", found.name), ("state", found.shown_state)]
    rows += [("priority", found.priority), ("file", found.file), ("submitted from", found.cwd)]
    rows += [("time", _took(found.started_s, found.ended_s))]
    rows += [("tries", found.tries)] if found.tries > 1 else []
    rows += [("error", found.error)] if found.error else []
    report = configured.home / "jobs" / found.id / "report.html"
    rows += [("report", report)] if report.is_file() else []
    _show.pairs(rows)
    click.echo()
    _show.table(
        ("process", "name", "state", "run", "attempts", "where", "time"),
        [
            (
                step.process, step.name, step.state, _run(configured, step), step.attempt, _where(step),
                _took(step.claimed_s, step.ended_s),
            )
            for step in found.steps
        ],
        right=("attempts", "time"),
    )  # fmt: skip
    for step in found.steps:
        why = step.error if step.state == "failed" else reasons[step.name]
        if why:
            click.echo(f"  {step.name}: {why}")


@command.command()
@click.argument("job")
def pause(job: str) -> None:
    """Hold a job back; what runs saves a checkpoint and frees its slot."""
    _ask(job, "pause", "continues with: melete jobs resume")


@command.command()
@click.argument("job")
@click.option("--kill", is_flag=True, help="End it at once, without a checkpoint.")
def stop(job: str, kill: bool) -> None:
    """Stop a job; what runs saves a checkpoint first."""
    _ask(job, "kill" if kill else "stop", "continues with: melete jobs resume")


@command.command()
@click.argument("job")
def resume(job: str) -> None:
    """Continue a job that was paused or stopped, from its newest checkpoints."""
    from melete import settings
    from melete.jobs.queue import opened

    with opened(settings.load()) as queue:
        found = queue.resume(job)
    click.echo(f"{found.id} {found.shown_state}. Watch it with: melete jobs logs -f {found.id}")


@command.command()
@click.argument("job")
@click.option(
    "--set", "changes", multiple=True, metavar="PROCESS.KEY=VALUE",
    help="Change a config value; that process, and all that come after it, start anew. May be repeated.",
)  # fmt: skip
def retry(job: str, changes: tuple[str, ...]) -> None:
    """Try a failed or stopped job again: what has succeeded stays, the rest continues from its checkpoints."""
    from melete import settings
    from melete.jobs.queue import opened

    with opened(settings.load()) as queue:
        found = queue.retry(job, _changes(changes))
    click.echo(f"{found.id} {found.shown_state}. Watch it with: melete jobs logs -f {found.id}")


@command.command()
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until the job has ended.")
@click.option("--process", "name", metavar="NAME", help="Only this process of the job.")
@click.option(
    "-n",
    "--lines",
    default=40,
    show_default=True,
    type=click.IntRange(0),
    help="Lines of each to begin with.",
)
def logs(job: str, follow: bool, name: str | None, lines: int) -> None:
    """Show what the processes of a job said."""
    from melete import settings
    from melete.errors import UnknownNameError
    from melete.jobs.queue import opened
    from melete.jobs.states import ENDED

    configured = settings.load()
    with opened(configured) as queue:
        found = queue.get(job)
        known = [step.name for step in found.steps]
        if name is not None and name not in known:
            raise UnknownNameError("process of this job", name, known)
        tails = {
            step.name: _tail(configured, found.id, step, lines)
            for step in found.steps
            if name in (None, step.name)
        }
        shown: str | None = None
        while True:
            ended = queue.get(found.id).state in ENDED if follow else True
            for which, tail in tails.items():
                for line in tail:
                    if line is None:
                        break
                    if which != shown and len(tails) > 1:
                        click.echo(f"== {which}")
                    shown = which
                    click.echo(line)
            if ended:
                break
            time.sleep(POLL_S)
        state = queue.get(found.id).state
    if follow:
        click.echo(f"{found.id} {state}", err=True)


def _tail(settings: Settings, job: str, step: Step, lines: int) -> Iterator[str | None]:
    """The last lines of a log, then each new one; None when there is none for now."""
    from melete.jobs.child import log_file

    path = log_file(settings, job, step.number, step.name)
    place, rest, first = 0, "", True
    while True:
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as file:
                file.seek(place)
                fresh = rest + file.read()
                place = file.tell()
            *whole, rest = fresh.split("\n")
            yield from whole[-lines:] if first and lines else whole if not first else ()
            first = False
        yield None


def _ask(job: str, wanted: str, then: str) -> None:
    from melete import settings
    from melete.jobs.queue import opened
    from melete.jobs.states import Wanted

    with opened(settings.load()) as queue:
        found = queue.ask(job, Wanted(wanted))
    click.echo(f"{found.id} {found.shown_state}; it {then} {found.id}")


def _changes(given: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """`base.depth=6` as {"base": {"depth": 6}}; a value is read as YAML."""
    import yaml

    from melete.errors import ConfigError

    changes: dict[str, dict[str, Any]] = {}
    for text in given:
        place, equals, value = text.partition("=")
        process, dot, key = place.rpartition(".")
        if not (equals and dot and process and key):
            raise ConfigError(
                f"--set {text!r} is not PROCESS.KEY=VALUE.", allowed="Such as: --set base.depth=6"
            )
        try:
            changes.setdefault(process, {})[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text!r}: the value cannot be read ({error}).") from error
    return changes


def _progress(job: Job) -> str:
    done = sum(step.state == "succeeded" for step in job.steps)
    return f"{done}/{len(job.steps)}"


def _run(settings: Settings, step: Step) -> str | None:
    """The run of a process; one whose folder was deleted says so."""
    if step.run is None or (settings.runs / step.run / "run.json").is_file():
        return step.run
    return f"{step.run} (deleted)"


def _where(step: Step) -> str | None:
    if step.host is None or step.state in ("waiting", "queued"):
        return None
    return " ".join([step.host, *(f"GPU {gpu}" for gpu in step.gpus)])


def _took(started_s: float | None, ended_s: float | None) -> str:
    from melete.runs.progress import duration

    return "–" if started_s is None else duration((ended_s or time.time()) - started_s)
