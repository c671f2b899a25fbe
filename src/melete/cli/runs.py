"""List, show, compare, stop, resume and report runs."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import click

from melete.cli._group import Group

if TYPE_CHECKING:
    from pathlib import Path

    from melete.records import RunRecord

STATES = click.Choice(["queued", "running", "succeeded", "failed", "stopped", "lost"])
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=Group)
def command() -> None:
    """List, show, compare, stop, resume and report runs.

    RUN is a run's id, the unique beginning of one, its name, or `latest`.
    """


@command.command("list")
@click.option("--state", type=STATES, help="Only runs in this state.")
@click.option("--process", help="Only runs of this process, such as llm.pretrain.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="The most runs shown.")
@click.option(
    "--everywhere", is_flag=True, help="Ask the database: runs of all homes and hosts that write to it."
)
@JSON
def list_runs(state: str | None, process: str | None, limit: int, everywhere: bool, as_json: bool) -> None:
    """The newest runs first."""
    from itertools import islice

    from melete import settings
    from melete.runs import folder

    if everywhere:
        from melete.store import index

        rows = index.newest(settings.load(), state=state, process=process, limit=limit)
    else:
        runs = (
            summary(path, record)
            for path, record in folder.all_runs(settings.load())
            if state in (None, record.state) and process in (None, record.process)
        )
        rows = list(islice(runs, limit))
    _print_list(rows, as_json, everywhere)


@command.command()
@click.argument("run")
@JSON
def show(run: str, as_json: bool) -> None:
    """One run: state, figures, checkpoints, provenance."""
    from melete.cli import _show
    from melete.errors import CheckpointError
    from melete.jobs.execute import read_config
    from melete.runs import checkpoints, provenance
    from melete.runs.lines import read_json_lines

    path, record = _open(run)
    saved = []
    for found in sorted((path / "checkpoints").glob("step_*")):
        try:
            saved.append(checkpoints.read(found))
        except CheckpointError as error:
            click.echo(f"warning: {error}", err=True)
    metrics = read_json_lines(path / "metrics.jsonl")
    config, origin = read_config(path), provenance.read(path)
    if as_json:
        _show.print_json(
            {
                "run": record,
                "config": config,
                "last": last_values(metrics),
                "checkpoints": saved,
                "provenance": origin,
            }
        )
        return
    _show.pairs(_head(path, record))
    if metrics:
        click.echo("\nlast figures")
        _show.table(
            ("figure", "last", "curve"),
            [
                (key, value, _show.sparkline(_series(metrics, key)))
                for key, value in last_values(metrics).items()
            ],
        )
    if record.result:
        click.echo("\nresult")
        _show.pairs([(key, _show.score(value)) for key, value in record.result.items()])
    if saved:
        click.echo("\ncheckpoints")
        for item in saved:
            size = sum(size for size, _ in item.files.values())
            click.echo(f"  {record.id}:{item.step}  {item.kind}  {size / 1e6:,.1f} MB")
    click.echo("\nconfig")
    _show.pairs(list(config.items()))
    _show_provenance(origin)


@command.command()
@click.argument("runs", nargs=-1, required=True)
@JSON
def compare(runs: tuple[str, ...], as_json: bool) -> None:
    """Runs side by side: the config keys that differ and the last figures."""
    from melete.cli import _show
    from melete.jobs.execute import read_config
    from melete.runs.lines import read_json_lines

    opened = [_open(run) for run in runs]
    configs = [{"process": record.process, **read_config(path)} for path, record in opened]
    metrics = [read_json_lines(path / "metrics.jsonl") for path, _ in opened]
    last = [
        {**last_values(lines), **record.result} for lines, (_, record) in zip(metrics, opened, strict=True)
    ]
    names = [record.name or record.id for _, record in opened]
    differing = [key for key in _keys(configs) if len({repr(config.get(key)) for config in configs}) > 1]
    if as_json:
        _show.print_json(
            {
                "runs": [record for _, record in opened],
                "config": {key: [config.get(key) for config in configs] for key in differing},
                "figures": {key: [values.get(key) for values in last] for key in _keys(last)},
            }
        )
        return
    if differing:
        _show.table(
            ("config", *names), [(key, *(config.get(key) for config in configs)) for key in differing]
        )
    else:
        click.echo("The configs are the same.")
    click.echo()
    figures = [(key, *(_show.score(values.get(key)) for values in last)) for key in _keys(last)]
    curves = [
        (f"{key} curve", *(_show.sparkline(_series(lines, key)) for lines in metrics))
        for key in ("loss", "reward", "val_bpb")
        if any(key in line for lines in metrics for line in lines)
    ]
    states = [("state", *(record.state for _, record in opened))]
    times = [("time", *(_took(record) for _, record in opened))]
    _show.table(("figure", *names), [*states, *times, *figures, *curves])


@command.command()
@click.argument("run")
@click.option(
    "--timeout-s", type=click.FloatRange(0), default=60.0, show_default=True, help="How long to wait."
)
@click.option("--kill", is_flag=True, help="Kill it at once; it can be resumed from its last checkpoint.")
def stop(run: str, timeout_s: float, kill: bool) -> None:
    """Ask a run to save a checkpoint and stop."""
    import os
    import socket

    from melete.errors import RunStateError
    from melete.records import RunState
    from melete.runs import folder

    path, record = _open(run)
    if record.state is not RunState.RUNNING or record.pid is None:
        raise RunStateError(f"Run {record.id} is {record.state}: there is nothing to stop.")
    if record.host != socket.gethostname():
        raise RunStateError(
            f"Run {record.id} runs on host {record.host}.", next_step=f"There: melete runs stop {record.id}"
        )
    os.kill(record.pid, signal.SIGKILL if kill else signal.SIGTERM)
    until_s = time.monotonic() + timeout_s
    while record.state is RunState.RUNNING and time.monotonic() < until_s:
        time.sleep(0.05)
        record = folder.read(path)
    if record.state is RunState.RUNNING:
        raise RunStateError(
            f"Run {record.id} was asked to stop and still runs after {timeout_s:g} s.",
            next_step=f"Wait, or kill it with: melete runs stop {record.id} --kill",
        )
    click.echo(f"{record.id} {record.state}. Continue it with: melete runs resume {record.id}")


@command.command()
@click.argument("run")
@click.option("--limit-batches", type=click.IntRange(1), help="The most steps per loop.")
def resume(run: str, limit_batches: int | None) -> int:
    """Continue a run that was stopped, failed or was lost, from its newest checkpoint."""
    from melete.cli._process import finish
    from melete.jobs.execute import Options
    from melete.jobs.execute import resume as continue_run

    path, _ = _open(run)
    return finish(continue_run(path, Options(limit_batches=limit_batches)))


@command.command()
@click.argument("run")
def report(run: str) -> None:
    """Write report.html anew and print its path."""
    from melete.runs import report as reports

    path, _ = _open(run)
    click.echo(reports.write(path))


def _open(ref: str) -> tuple[Path, RunRecord]:
    from melete import settings
    from melete.runs import folder, refs

    path = refs.run(settings.load(), ref)
    return path, folder.read(path)


def summary(path: Path, record: RunRecord) -> dict[str, Any]:
    """One row of the list."""
    from melete.runs.lines import last_json_lines

    values = last_values(last_json_lines(path / "metrics.jsonl"))
    return {
        "id": record.id,
        "name": record.name or record.step_name,
        "process": record.process,
        "state": str(record.state),
        "step": values.pop("step", None),
        "loss": values.get("loss"),
        "created_s": record.created_s,
        "job": record.job,
        "error": record.error,
    }


def last_values(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """The last value of each figure, whatever line it stands in."""
    values: dict[str, Any] = {}
    for line in metrics:
        values.update(line)
    values.pop("time_s", None)
    return values


def _print_list(rows: list[dict[str, Any]], as_json: bool, everywhere: bool) -> None:
    from melete.cli import _show

    if as_json:
        _show.print_json(rows)
    elif not rows:
        click.echo("No runs yet. Start one, such as: melete llm pretrain --help")
    else:
        keys = ["id", "name", "process", "state", "step", "loss", *(["location"] if everywhere else [])]
        now_s = time.time()
        cells = [(*(row[key] for key in keys), _show.age(now_s - row["created_s"])) for row in rows]
        _show.table([*keys, "age"], cells, right=("step", "loss", "age"))


def _head(path: Path, record: RunRecord) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = [("run", record.id), ("process", record.process), ("state", record.state)]
    rows += [(key, value) for key, value in (("name", record.name), ("job", record.job)) if value]
    rows += [("time", _took(record)), ("folder", path)]
    rows += [("resumed", f"{record.resumed} times")] if record.resumed else []
    rows += [("error", record.error)] if record.error else []
    return rows


def _took(record: RunRecord) -> str:
    from melete.runs.progress import duration

    if record.started_s is None:
        return "not started"
    return duration((record.ended_s or time.time()) - record.started_s)


def _series(metrics: list[dict[str, Any]], key: str) -> list[float]:
    return [line[key] for line in metrics if isinstance(line.get(key), (int, float))]


def _keys(dicts: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for values in dicts for key in values))


def _show_provenance(origin: dict[str, Any] | None) -> None:
    from melete.cli import _show

    if origin is None:
        return
    click.echo("\nprovenance")
    sitting = origin["sittings"][-1]
    machine = sitting["machine"]
    rows: list[tuple[str, Any]] = [("command", " ".join(sitting["argv"])), ("seed", origin["seed"])]
    for code in sitting["code"]:
        changes = f" with uncommitted changes in {code['patch']}" if code["patch"] else ""
        rows.append((f"code {code['folder']}", f"{code['commit']}{changes}"))
    rows += [("python", f"{sitting['python']} on {sitting['platform']}")]
    rows += [("machine", f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB")]
    rows += [("gpu", f"{gpu['name']}, driver {gpu['driver']}") for gpu in machine["gpus"]]
    rows += [(f"dataset {name}", f"sha256 {digest}") for name, digest in origin["datasets"].items()]
    rows += [("packages", f"{len(sitting['packages'])}, listed in provenance.json")]
    _show.pairs(rows)
