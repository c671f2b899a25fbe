"""Executes one process in this Python process: makes or reopens its run folder, calls `main`, keeps how it ended.

SIGINT and SIGTERM ask the run to stop (`run.stopping`): it saves a checkpoint and ends as `stopped`; the second
signal aborts. A `MeleteError` ends the run as `failed` with its message and is raised again for the caller to show.
Under `torchrun` only rank 0 owns a folder; the other ranks get a silent run, which on a resume reads the checkpoints of
that folder.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from melete import find
from melete import settings as settings_module
from melete.errors import MeleteError, RunStateError, StorageError
from melete.jobs.plan import derived, pin
from melete.jobs.signals import stop_signals
from melete.records import RunRecord, RunState, move
from melete.runs import folder as folders
from melete.runs import headway, provenance, report
from melete.runs.heartbeat import beating
from melete.runs.process import ProcessConfig, parse_config
from melete.runs.run import Run
from melete.runs.seeding import seed_all
from melete.settings import Settings

Main = Callable[[Any, Run], None]


@dataclass(frozen=True)
class Options:
    """How to execute, as opposed to what."""

    settings: Settings = field(default_factory=settings_module.load)
    name: str | None = None
    limit_batches: int | None = None
    job: str | None = None
    step_name: str | None = None
    carry_out: Main | None = None
    """What to call in place of the process's own `main`, such as one that lets another machine do it."""


def execute(
    process: str,
    values: dict[str, Any],
    options: Options | None = None,
    opened: Callable[[str], None] | None = None,
) -> RunRecord:
    """Runs a process from its start.

    Args:
        process: name such as `llm.pretrain`.
        values: config values that differ from the defaults.
        options: name, limits and settings.
        opened: told the run's id once its folder stands.

    Returns:
        The record of a run that succeeded or was stopped.

    Raises:
        ConfigError: a value is wrong, or an input does not exist (any error of its kind); no run folder was made.
        MeleteError: the run failed; its folder says so too.
    """
    options = options or Options()
    config = pin(parse_config(process, values), options.settings)
    limit = options.limit_batches
    if rank() > 0:
        record = RunRecord("silent", process, RunState.RUNNING, time.time())
        return _execute(None, record, config, Run(None, limit_batches=limit), options)
    path, record = folders.create(
        options.settings,
        process,
        name=options.name,
        job=options.job,
        step_name=options.step_name,
        limit_batches=limit,
    )
    write_config(path, config)
    if opened is not None:
        opened(record.id)
    return _execute(path, record, config, Run(path, limit_batches=limit), options)


def resume(path: Path, options: Options | None = None) -> RunRecord:
    """Continues a run that failed, was stopped or was lost, in its own folder, from its newest checkpoint.

    Raises:
        RunStateError: the run is alive or has succeeded.
        MeleteError: the run failed again.
    """
    options = options or Options()
    record = folders.read(path)
    record.limit_batches = options.limit_batches or record.limit_batches
    config = parse_config(record.process, read_config(path))
    if rank() > 0:
        silent = Run(None, limit_batches=record.limit_batches, resuming=True, source=path)
        return _execute(None, record, config, silent, options)
    _refuse_if_nothing_to_resume(record)
    run = Run(path, limit_batches=record.limit_batches, resuming=True)
    return _execute(path, record, config, run, options)


def _refuse_if_nothing_to_resume(record: RunRecord) -> None:
    if record.state is RunState.SUCCEEDED:
        raise RunStateError(
            f"Run {record.id} has succeeded: nothing is left to resume.",
            next_step=f"Start a new run with: melete {record.process.replace('.', ' ')}",
        )
    if record.state is RunState.RUNNING:
        raise RunStateError(
            f"Run {record.id} is running in process {record.pid} on {record.host}.",
            next_step=f"Stop it first with: melete runs stop {record.id}",
        )


def _execute(
    path: Path | None, record: RunRecord, config: ProcessConfig, run: Run, options: Options
) -> RunRecord:
    """Calls `main` between a begin and an end that the run folder keeps; a silent run (no path) keeps nothing."""
    state = RunState.FAILED
    index = Index(path, options.settings)
    with beating(path, index.note) if path else nullcontext(), stop_signals(run):
        _begin(path, record, run)
        try:
            if path is not None:
                folders.reserve(path)
                provenance.record(path, seed=config.seed)
                write_plan(path, record.process, config)
            seed_all(config.seed, rank())
            main = options.carry_out or find.process(record.process).main
            with find.named_extras():
                main(config, run)
            state = RunState.STOPPED if run.stopping else RunState.SUCCEEDED
        except KeyboardInterrupt:
            state = RunState.STOPPED
            record.error = "aborted by a second signal"
            raise
        except MeleteError as error:
            record.error = str(error)
            raise
        except Exception as error:
            record.error = f"{type(error).__name__}: {error}"
            with suppress(StorageError):
                run.note(traceback.format_exc())
            raise
        finally:
            _end(path, record, state, run)
            index.note()
    return record


def _begin(path: Path | None, record: RunRecord, run: Run) -> None:
    """Marks the run as running; the heartbeat's lock is held, so only one process at a time comes here."""
    if path is None:
        return
    if run.resuming:
        _refuse_if_nothing_to_resume(folders.read(path))  # another process may have continued it meanwhile
        if run.latest_checkpoint() is None:
            run.rewind(-1)  # it starts over, and so do its figures
        record.resumed += 1
        record.error = None
        if record.state is not RunState.QUEUED:
            record.state = move(record.state, RunState.QUEUED)
    headway.ending(path, False)
    record.started_s, record.ended_s = time.time(), None
    record.pid, record.host = os.getpid(), socket.gethostname()
    record.pid_started_s = folders.process_start_s(os.getpid())
    folders.set_state(path, record, RunState.RUNNING)


def _end(path: Path | None, record: RunRecord, state: RunState, run: Run) -> None:
    """Keeps how a run ended: the record first, then what can be made again from the folder."""
    record.ended_s = time.time()
    record.result = run.result
    for name, seconds in run.clock.settle().items():
        record.seconds[name] = round(record.seconds.get(name, 0.0) + seconds, 3)
    run.close()
    if path is None:
        record.state = state
        return
    try:
        folders.release(path)
        folders.set_state(path, record, state)
        provenance.keep_datasets(path, run.datasets)
    except StorageError as error:
        print(f"warning: {error}", file=sys.stderr)
    try:
        report.write(path)
    except Exception as error:  # the run has ended and is kept: a report can be made again
        print(f"warning: the report was not written: {error}", file=sys.stderr)


class Index:
    """Notes a run in the database, which it does not depend on: one that is away is a single warning."""

    def __init__(self, path: Path | None, settings: Settings) -> None:
        self.path = path
        self.settings = settings
        self.away = False

    def note(self) -> None:
        """Writes what the folder says."""
        if self.path is None or self.away:
            return
        from melete.store import index

        try:
            index.record(replace(self.settings, home=self.path.parent.parent), self.path)
        except MeleteError as error:
            self.away = True
            print(f"warning: {error}", file=sys.stderr)


def rank() -> int:
    """This process's rank under `torchrun`; 0 outside it."""
    return int(os.environ.get("RANK", "0"))


def write_config(path: Path, config: ProcessConfig) -> None:
    """Writes the resolved config as `config.yaml`."""
    import yaml

    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    folders.replace_file(path / "config.yaml", text)


def write_plan(path: Path, process: str, config: ProcessConfig) -> None:
    """Writes the derived values that the process states, with their reasons, as `plan.json`."""
    rows = [
        {"name": row.name, "value": str(row.value), "reason": row.reason} for row in derived(process, config)
    ]
    if rows:
        folders.replace_file(path / "plan.json", json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def read_config(path: Path) -> dict[str, Any]:
    """Reads `config.yaml` of a run."""
    import yaml

    values: dict[str, Any] = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    return values
