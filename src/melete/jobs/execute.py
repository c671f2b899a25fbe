"""Executes one process in this Python process: makes or reopens its run folder, calls `main`, keeps how it ended.

SIGINT and SIGTERM ask the run to stop (`run.stopping`): it saves a checkpoint and ends as `stopped`; the second
signal aborts. A `MeleteError` ends the run as `failed` with its message and is raised again for the caller to show.
Under `torchrun` only rank 0 owns a folder; the other ranks get a silent run, which on a resume reads the checkpoints of
that folder.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from melete import find, settings
from melete.errors import MeleteError, RunStateError, StorageError
from melete.records import RunRecord, RunState
from melete.runs import folder as folders
from melete.runs import provenance
from melete.runs.heartbeat import beating
from melete.runs.process import ProcessConfig, parse_config
from melete.runs.run import Run
from melete.runs.seeding import seed_all
from melete.settings import Settings


@dataclass(frozen=True)
class Options:
    """How to execute, as opposed to what."""

    settings: Settings = field(default_factory=settings.load)
    name: str | None = None
    limit_batches: int | None = None
    job: str | None = None
    step_name: str | None = None


def execute(process: str, values: dict[str, Any], options: Options | None = None) -> RunRecord:
    """Runs a process from its start.

    Args:
        process: name such as `llm.pretrain`.
        values: config values that differ from the defaults.
        options: name, limits and settings.

    Returns:
        The record of a run that succeeded or was stopped.

    Raises:
        ConfigError: a value is wrong; no run folder was made.
        MeleteError: the run failed; its folder says so too.
    """
    options = options or Options()
    config = parse_config(process, values)
    if rank() > 0:
        record = RunRecord("silent", process, RunState.RUNNING, time.time())
        return _execute(None, record, config, Run(None, limit_batches=options.limit_batches))
    path, record = folders.create(
        options.settings,
        process,
        name=options.name,
        job=options.job,
        step_name=options.step_name,
        limit_batches=options.limit_batches,
    )
    write_config(path, config)
    return _execute(path, record, config, Run(path, limit_batches=options.limit_batches))


def resume(path: Path, options: Options | None = None) -> RunRecord:
    """Continues a run that failed, was stopped or was lost, in its own folder, from its newest checkpoint.

    Raises:
        RunStateError: the run is alive or has succeeded.
        MeleteError: the run failed again.
    """
    options = options or Options()
    record = folders.read(path)
    limit = record.limit_batches if options.limit_batches is None else options.limit_batches
    config = parse_config(record.process, read_config(path))
    if rank() > 0:
        return _execute(None, record, config, Run(None, limit_batches=limit, resuming=True, source=path))
    if record.state is RunState.SUCCEEDED:
        raise RunStateError(
            f"Run {record.id} has succeeded: nothing is left to resume.",
            next_step=f"Start a new run with: melete {record.process.replace('.', ' ')}",
        )
    if record.state in (RunState.RUNNING, RunState.QUEUED):
        raise RunStateError(
            f"Run {record.id} is {record.state} in process {record.pid} on {record.host}.",
            next_step=f"Stop it first with: melete runs stop {record.id}",
        )
    record.resumed += 1
    record.error = None
    record.limit_batches = limit
    folders.set_state(path, record, RunState.QUEUED)
    return _execute(path, record, config, Run(path, limit_batches=limit, resuming=True))


def _execute(path: Path | None, record: RunRecord, config: ProcessConfig, run: Run) -> RunRecord:
    """Calls `main` between a begin and an end that the run folder keeps; a silent run (no path) keeps nothing."""
    state = RunState.FAILED
    with beating(path) if path else nullcontext():
        _begin(path, record)
        try:
            if path is not None:
                provenance.record(path, seed=config.seed)
            seed_all(config.seed, rank())
            with stop_signals(run):
                find.process(record.process).main(config, run)
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
    return record


def _begin(path: Path | None, record: RunRecord) -> None:
    record.started_s, record.ended_s = time.time(), None
    record.pid, record.host = os.getpid(), socket.gethostname()
    record.pid_started_s = folders.process_start_s(os.getpid())
    if path is not None:
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
        folders.set_state(path, record, state)
        provenance.keep_datasets(path, run.datasets)
    except StorageError as error:
        print(f"warning: {error}", file=sys.stderr)


@contextmanager
def stop_signals(run: Run) -> Iterator[None]:
    """SIGINT and SIGTERM ask the run to stop, the second one raises KeyboardInterrupt; restored at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        run.stop()
        if not run.silent:  # straight to the descriptor: a print may be interrupted in the middle
            os.write(
                2, f"\n{signal.Signals(number).name}: stopping after this step; once more aborts\n".encode()
            )

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def rank() -> int:
    """This process's rank under `torchrun`; 0 outside it."""
    return int(os.environ.get("RANK", "0"))


def write_config(path: Path, config: ProcessConfig) -> None:
    """Writes the resolved config as `config.yaml`."""
    import yaml

    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    folders.replace_file(path / "config.yaml", text)


def read_config(path: Path) -> dict[str, Any]:
    """Reads `config.yaml` of a run."""
    import yaml

    values: dict[str, Any] = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    return values
