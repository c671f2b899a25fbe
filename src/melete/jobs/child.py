"""One attempt at one process of a queued job, in a process of its own: what a worker starts, on this host or another.

    python -m melete.jobs.child JOB NUMBER ATTEMPT

It begins only if the attempt is still its own, executes or resumes the run as `melete run` does, beats every two
seconds and ends itself when that is wanted: gracefully (a checkpoint first) or at once. It outlives its worker, and
writes down itself how it ended. A database that is away does not disturb the run; it then tries to tell the end for
some minutes, and after that its run's folder tells it.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

import melete
from melete import find
from melete import settings as configured
from melete.errors import HubError, MeleteError, ServerError, StorageError
from melete.jobs import claims
from melete.jobs import file as job_file
from melete.jobs.claims import Ending, Wish, Work
from melete.jobs.execute import Options, execute, resume
from melete.jobs.states import ENDED, JobState, StepState
from melete.records import JobRecord, JobStep, RunRecord, RunState
from melete.runs import folder as folders
from melete.runs import report
from melete.settings import Settings
from melete.store import database

PROGRAM = [sys.executable, "-P", "-m", "melete.jobs.child"]
EXECUTORS = "melete.jobs.executors"
TELL_S = 300.0
LAST_SECONDS_S = 30.0
"""A child whose attempt was given to another one may take this long to stop."""
PASSING = (ServerError, HubError)
"""Errors of ours that another attempt could be spared; the others would only come again."""


class NotOurs(MeleteError):
    """The attempt was given to another child; nothing was done."""


def command(job: str, number: int, attempt: int) -> list[str]:
    """The command line of a child, for an executor; it finds the processes that this Python finds."""
    beside = [part for root in list(melete.__path__)[1:] for part in ("--with", root)]
    return [*PROGRAM, *beside, job, str(number), str(attempt)]


def arguments(command: list[str]) -> list[str]:
    """What `main` is given by a command line of `command`."""
    return command[len(PROGRAM) :]


def main(given: list[str] | None = None) -> int:
    """Runs one attempt; the exit code is that of the process, or 0 if the attempt was not ours any more."""
    parser = argparse.ArgumentParser(prog="melete.jobs.child")
    parser.add_argument("--with", dest="beside", action="append", default=[])
    parser.add_argument("job")
    parser.add_argument("number", type=int)
    parser.add_argument("attempt", type=int)
    told = parser.parse_args(given)
    melete.__path__.extend(root for root in told.beside if root not in melete.__path__)
    try:
        settings = configured.load()
        with database.opened(settings.database) as engine:
            return Attempt(settings, engine, told.job, told.number, told.attempt).run()
    except MeleteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


class Attempt:
    """One attempt, held by its number.

    Args:
        settings: the home and the database.
        engine: database at its newest schema.
        job: id of the job.
        number: of the process in it.
        attempt: what has to be the process's attempt for anything to be written.
    """

    def __init__(self, settings: Settings, engine: Engine, job: str, number: int, attempt: int) -> None:
        self.settings = settings
        self.engine = engine
        self.key = (job, number, attempt)

    def run(self) -> int:
        """Begins, executes, beats and ends."""
        pid = os.getpid()
        work = claims.begin(
            self.engine,
            *self.key,
            host=socket.gethostname(),
            pid=pid,
            pid_started_s=folders.process_start_s(pid),
        )
        if work is None:
            print("This attempt is no longer wanted; nothing was done.")
            return 0
        with suppress(OSError):  # a folder that is gone: relative paths then start where the worker is
            os.chdir(work.job.cwd)
        with self._beating():
            ending, code = self._carry_out(work)
        state = self._tell(ending)
        if state in ENDED:
            self._report(work)
        return code

    def _carry_out(self, work: Work) -> tuple[Ending, int]:
        """How the process ended, and the exit code."""
        try:
            with find.named_extras():
                record = self._execute(work)
        except KeyboardInterrupt:
            return Ending(StepState.STOPPED, "aborted by a second signal"), 130
        except MeleteError as error:
            print(f"error: {error}", file=sys.stderr)
            return Ending(StepState.FAILED, str(error), again=isinstance(error, PASSING)), error.exit_code
        except Exception as error:  # a bug in the process: it fails, with its traceback in the log
            traceback.print_exc()
            return Ending(StepState.FAILED, f"{type(error).__name__}: {error}", again=True), 1
        if record.state is RunState.STOPPED:
            return Ending(StepState.STOPPED), 130
        return Ending(StepState.SUCCEEDED), 0

    def _execute(self, work: Work) -> RunRecord:
        step = work.step
        executor = find.load(EXECUTORS, step.executor, "executor")
        options = Options(
            configured.load(),
            limit_batches=step.limit_batches,
            job=work.job.id,
            step_name=step.name,
            carry_out=executor.carry_out(step) if hasattr(executor, "carry_out") else None,
        )
        path = self.settings.runs / step.run if step.run else None
        if path is not None and (path / "run.json").is_file():
            record = self._silent(path)
            if record.state is RunState.SUCCEEDED:
                return record  # it had ended, and could not tell
            print(f"Attempt {step.attempt}: continuing run {path.name}", flush=True)
            return resume(path, options)
        if path is not None:
            print(f"The folder of run {path.name} is gone: a new run is started.", flush=True)
        config = job_file.substitute(step.config, work.runs)
        return execute(step.process, config, options, self._opened)

    def _silent(self, path: Path) -> RunRecord:
        """The run's record, once the process that had it before shows no sign of life any more.

        One of another host, whose node was lost, may still look alive for as long as its last heartbeat counts.
        """
        until_s = time.monotonic() + folders.BEAT_LIMIT_S * 1.5
        while (record := folders.read(path)).state is RunState.RUNNING and time.monotonic() < until_s:
            time.sleep(claims.BEAT_S)
        return record

    def _opened(self, run_id: str) -> None:
        """Writes the run down; a run that nobody may execute leaves no folder behind."""
        if claims.note_run(self.engine, *self.key, run_id):
            print(f"Attempt {self.key[2]}: run {run_id}", flush=True)
            return
        import shutil

        shutil.rmtree(self.settings.runs / run_id, ignore_errors=True)
        raise NotOurs("This attempt was given to another child.")

    @contextmanager
    def _beating(self) -> Iterator[None]:
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=(ended,), name="queue", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self, ended: threading.Event) -> None:
        """Asks what is wanted until the process has ended, and does it to this process."""
        asked_s: float | None = None
        while not ended.wait(claims.BEAT_S):
            try:
                wish = claims.beat(self.engine, *self.key)
            except (SQLAlchemyError, OSError):  # away, or a full disk: the run goes on
                continue
            if wish is Wish.KILL or (asked_s and wish is Wish.LOST and time.monotonic() > asked_s):
                os.kill(os.getpid(), signal.SIGKILL)
            if wish is not Wish.GO_ON and asked_s is None:
                asked_s = time.monotonic() + LAST_SECONDS_S
                print(_WHY[wish], file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGTERM)  # what `melete runs stop` sends: the run saves and ends

    def _tell(self, ending: Ending) -> JobState | None:
        """Writes down how it ended, for as long as the database takes to come back."""
        until_s, pause_s = time.monotonic() + TELL_S, 0.5
        while True:
            try:
                return claims.finish(self.engine, *self.key, ending)
            except (SQLAlchemyError, StorageError) as error:
                if time.monotonic() + pause_s > until_s:
                    print(f"warning: the end could not be told to the queue: {error}", file=sys.stderr)
                    return None
                time.sleep(pause_s)
                pause_s = min(10.0, pause_s * 2)

    def _report(self, work: Work) -> None:
        """Writes the job's report, which can be made again and so disturbs nothing."""
        from melete.jobs.queue import job_of

        try:
            with self.engine.connect() as connection:
                job = job_of(connection, work.job.id)
            steps = [
                JobStep(one.name, one.process, one.config, one.limit_batches, one.run, RunState(one.state))
                for one in job.steps
                if one.run is not None and (self.settings.runs / one.run / "run.json").is_file()
            ]
            record = JobRecord(
                job.id, job.name, job.file, RunState(job.state), job.created_s, steps, error=job.error
            )
            path = self.settings.home / "jobs" / job.id
            path.mkdir(parents=True, exist_ok=True)
            report.write_job(path, record, self.settings.runs)
        except Exception as error:
            print(f"warning: the report was not written: {error}", file=sys.stderr)


_WHY = {
    Wish.STOP: "The queue asks this process to stop: it saves and ends.",
    Wish.LOST: "This attempt was given to another child: it ends.",
}


def ending_by_folder(settings: Settings, run: str | None, how: str) -> Ending:
    """How an attempt ended whose child could not tell: its run's folder is the truth.

    Args:
        settings: where the runs are.
        run: the run that it had opened.
        how: the child's end in words, such as `was killed by SIGKILL`.
    """
    try:
        record = folders.read(settings.runs / (run or "-"))
    except (MeleteError, OSError):
        return Ending(StepState.FAILED, f"its process {how} before it had a run", again=True)
    if record.state is RunState.SUCCEEDED:
        return Ending(StepState.SUCCEEDED)
    if record.state is RunState.STOPPED:
        return Ending(StepState.STOPPED)
    if record.state is RunState.FAILED:
        return Ending(StepState.FAILED, record.error)
    return Ending(StepState.FAILED, f"its process {how}", again=True)


def log_file(settings: Settings, job: str, number: int, name: str) -> Path:
    """Where the output of a process's children is kept, one after the other."""
    return settings.home / "jobs" / job / f"{number + 1:02d}-{name}.log"


if __name__ == "__main__":
    sys.exit(main())
