"""A worker: claims processes from the queue, starts a child for each, watches them, and takes over what the dead left.

    while not stopping:
        beat          tells that it lives
        reap          writes down the end of children that could not do so themselves
        kill          ends what was asked to stop and did not, after a time of grace
        take over     children whose worker died; what died with its child goes back into the queue
        claim         as long as a slot is free

It waits for the end of a child, a signal, or a second. Killed at any moment it loses nothing: its children go on, and
the next worker of this host watches them. Limit: a process that needs many slots may be overtaken by those that need
few.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from melete import find
from melete.errors import DeviceError, MeleteError, StorageError
from melete.jobs import child, claims, devices, nursery
from melete.jobs.claims import Claim, Ending, Worker
from melete.jobs.home import home_id
from melete.jobs.signals import handled
from melete.jobs.states import StepState, Wanted
from melete.runs import folder as folders
from melete.settings import Settings
from melete.store import database

WAIT_S = 1.0
LOOK_S = 5.0
"""Seconds between two looks for what dead workers left."""
BEAT_S = 5.0
GRACE_S = 120.0
"""Seconds that a process gets for its checkpoint before it is killed."""
MOST_ELSEWHERE = 32
"""Children that one worker watches for other machines, which take none of its slots."""


@dataclass(frozen=True)
class Options:
    """How to work.

    `gpus` is auto, none, or numbers; `drain` ends the worker when the queue is empty; `executors` None offers all that
    can be used here.
    """

    gpus: str = "auto"
    cpu_slots: int = 1
    executors: tuple[str, ...] | None = None
    grace_s: float = GRACE_S
    drain: bool = False


class Child:
    """A process that is watched: one of our own, or one that a dead worker left."""

    def __init__(self, claim: Claim, started: subprocess.Popen[bytes] | nursery.Forked | None) -> None:
        self.claim = claim
        self.started = started
        self.pid = started.pid if started is not None else claim.pid
        assert self.pid is not None
        self.ends: int | None = None
        with suppress(OSError, AttributeError):  # an old kernel: then it is looked at once a second
            self.ends = os.pidfd_open(self.pid)

    def ended(self) -> str | None:
        """How it ended, in words; None while it lives."""
        if self.started is None:
            step = self.claim.step
            return None if folders.same_process(step.pid or 0, step.pid_started_s) else "died"
        code = self.started.poll()
        if code is None:
            return None
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def kill(self) -> None:
        """Ends it, with all that it started in its session."""
        if self.ended() is None and self.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def forget(self) -> None:
        """Lets go of it."""
        if self.ends is not None:
            os.close(self.ends)


class Loop:
    """The worker's loop; see the head of this file.

    Args:
        settings: home and database.
        engine: database at its newest schema.
        worker: its record.
        options: how to work.
        say: prints a line.
    """

    def __init__(
        self, settings: Settings, engine: Engine, worker: Worker, options: Options, say: Callable[[str], None]
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.worker = worker
        self.options = options
        self.say = say
        self.children: dict[tuple[str, int], Child] = {}
        self.stopping = False
        self._handed_back = False
        self._looked_s = self._beat_s = float("-inf")
        self._stopped_s = 0.0
        self._trouble: str | None = None
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    def run(self) -> None:
        """Works until it is asked to stop; then its children save, end, and go back into the queue."""
        claims.enter(self.engine, self.worker)
        try:
            while not (self.stopping and not self.children):
                try:
                    idle = self.turn()
                    self._well()
                except (SQLAlchemyError, StorageError, OSError) as error:
                    self._unwell(error)
                    idle = False
                if idle and self.options.drain:
                    break
                self._wait()
        finally:
            with suppress(SQLAlchemyError):
                claims.leave(self.engine, self.worker)
            os.close(self._wake)
            os.close(self._waker)

    def turn(self) -> bool:
        """One round; returns whether there was nothing to do and nothing is running.

        Raises:
            StorageError: the database is of a newer version, or the disk is full.
        """
        now_s = time.monotonic()
        if now_s - self._beat_s > BEAT_S:
            claims.worker_beats(self.engine, self.worker)
            self._beat_s = now_s
        self._reap()
        self._kill_late_ones()
        if now_s - self._looked_s > LOOK_S:
            self._look_after_the_dead()
            self._looked_s = now_s
        if self.stopping:
            if not self._handed_back:
                claims.hand_back(self.engine, self.worker)
                self._handed_back, self._stopped_s = True, time.time()
            return False
        while (found := self._claim()) is not None:
            self._start(found)
        return not self.children and not claims.waiting(self.engine, self.worker)

    def stop(self, *_: object) -> None:
        """Asks it to stop; a second time kills the children, which go on from their newest checkpoint."""
        if self.stopping:
            for one in self.children.values():
                one.kill()
        self.stopping = True
        self._nudge()

    def _claim(self) -> Claim | None:
        elsewhere = sum(one.claim.step.executor != "local" for one in self.children.values())
        worker = self.worker
        if elsewhere >= MOST_ELSEWHERE:
            worker = Worker(**{**worker.__dict__, "executors": ("local",)})
        return claims.claim(self.engine, worker)

    def _start(self, claim: Claim) -> None:
        """Starts the child of a claim; one that cannot be started has failed."""
        step = claim.step
        executor = find.load(child.EXECUTORS, step.executor, "executor")
        told = child.command(claim.job, step.number, step.attempt)
        argv, more = executor.command(claim, told)
        environ = {
            **os.environ,
            "MELETE_HOME": str(self.settings.home.resolve()),
            "MELETE_DATABASE": database.absolute(self.settings.database),
            **more,
        }
        try:
            path = child.log_file(self.settings, claim.job, step.number, step.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as log:
                started = self._run(argv, environ, log, forks=getattr(executor, "FORKS", False))
        except OSError as error:
            text = f"its process could not be started: {error.strerror} ({argv[0]})"
            claims.finish(
                self.engine, claim.job, step.number, step.attempt, Ending(StepState.FAILED, text, True)
            )
            return
        self.children[claim.job, step.number] = Child(claim, started)
        on = f" on GPU {', '.join(map(str, step.gpus))}" if step.gpus else ""
        self.say(f"{claim.job} {step.name}: started{on}, attempt {step.attempt}")

    def _run(
        self, argv: list[str], environ: dict[str, str], log: IO[bytes], *, forks: bool
    ) -> subprocess.Popen[bytes] | nursery.Forked:
        """Starts a process: forked from this one, which has loaded what every child needs, where that is safe."""
        if forks:
            self.engine.dispose()  # no connection may be open in two processes
            if nursery.is_safe(self.settings.database):
                return nursery.fork(child.main, child.arguments(argv), environ, log)
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, start_new_session=True
        )

    def _reap(self) -> None:
        """Takes leave of children that have ended; most have told their end themselves."""
        for key, one in list(self.children.items()):
            how = one.ended()
            if how is None:
                continue
            step = one.claim.step
            run = claims.run_of(self.engine, one.claim.job, step.number)
            ending = child.ending_by_folder(self.settings, run, how)
            told = claims.finish(self.engine, one.claim.job, step.number, one.claim.attempt, ending)
            one.forget()
            del self.children[key]
            self.say(f"{one.claim.job} {step.name}: {how if told else 'ended'}")

    def _kill_late_ones(self) -> None:
        """Kills children that were asked to stop and have not, once their grace is over or if they never began."""
        if not self.children:
            return
        wanted = claims.wishes(self.engine, {job for job, _ in self.children})
        for (job, number), one in self.children.items():
            wish, since_s = wanted.get(job, (Wanted.RUN, 0.0))
            if wish == Wanted.RUN and self._handed_back:
                wish, since_s = Wanted.STOP, self._stopped_s
            if wish == Wanted.RUN:
                continue
            late = time.time() - since_s > self.options.grace_s
            if wish == Wanted.KILL or late or not claims.has_begun(self.engine, job, number):
                one.kill()

    def _look_after_the_dead(self) -> None:
        """Takes over children whose worker is dead, and what has died with its child goes back into the queue."""
        if not claims.is_current(self.engine):
            raise StorageError(
                "The database has been upgraded by a newer Melete; this worker takes nothing more.",
                next_step="Restart it with the newer one: melete worker",
            )
        for found in claims.abandoned(self.engine, self.worker):
            step = found.step
            if found.pid is not None:
                if not self.stopping and claims.adopt(self.engine, self.worker, found):
                    self.children[found.job, step.number] = Child(found, None)
                    self.say(f"{found.job} {step.name}: its worker died; watched from here")
            elif step.pid is None:
                claims.give_back(self.engine, found)
            elif not self._run_lives(step.run):
                ending = child.ending_by_folder(self.settings, step.run, "died with its worker")
                claims.finish(self.engine, found.job, step.number, step.attempt, ending)
        claims.forget_dead(self.engine, self.worker)

    def _run_lives(self, run: str | None) -> bool:
        """Whether a run's folder, which may lie on a shared disk, still shows a sign of life."""
        try:
            record = folders.read_stored(self.settings.runs / (run or "-"))
            return record.state == "running" and folders.alive(self.settings.runs / record.id, record)
        except MeleteError:
            return False

    def _wait(self) -> None:
        """Until a child ends, somebody wants something, or a second is over."""
        ends = [one.ends for one in self.children.values() if one.ends is not None]
        watched = [self._wake, *(ends if self._trouble is None else ())]
        ready, _, _ = select.select(watched, [], [], WAIT_S if self._trouble is None else LOOK_S)
        if self._wake in ready:
            os.read(self._wake, 4096)

    def _nudge(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._waker, b"!")

    def _unwell(self, error: Exception) -> None:
        """Says once what is wrong with the database or the disk; it is tried again."""
        text = str(error).split("\n")[0]
        if text != self._trouble:
            self.say(f"warning: {text} Nothing is lost; it is tried again every {LOOK_S:.0f} s.")
            self._trouble = text

    def _well(self) -> None:
        if self._trouble is not None:
            self.say("It works again.")
            self._trouble = None


def work(settings: Settings, options: Options, say: Callable[[str], None] = print) -> None:
    """Works in this process until SIGTERM or Ctrl-C.

    Raises:
        DeviceError: a GPU that is not here.
        MeleteError: an executor that cannot be used here, or a database of a newer version.
    """
    gpus = devices.chosen(options.gpus)
    if not gpus and options.cpu_slots < 1:
        raise DeviceError("A worker without a GPU and without CPU slots has nothing to work with.")
    executors = usable(settings, options.executors)
    pid = os.getpid()
    worker = Worker(
        f"{socket.gethostname()[:40]}-{pid}-{secrets.token_hex(3)}",
        home_id(settings),
        socket.gethostname(),
        pid,
        folders.process_start_s(pid) or time.time(),
        gpus,
        options.cpu_slots,
        executors,
    )
    nursery.load()
    with database.opened(settings.database) as engine:
        loop = Loop(settings, engine, worker, options, say)
        slots = [f"GPU {gpu}" for gpu in gpus] + [f"{options.cpu_slots} on the CPU"] * (options.cpu_slots > 0)
        say(f"Worker {worker.id}: slots {', '.join(slots)}; executors {', '.join(executors)}.")
        with handled(lambda _: loop.stop()):
            loop.run()


def usable(settings: Settings, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """The executors that can be used here.

    Raises:
        UnknownNameError: no such executor.
        DeviceError: one that was asked for cannot be used.
    """
    found = []
    for name in wanted or find.names(child.EXECUTORS):
        problem = find.load(child.EXECUTORS, name, "executor").problem(settings)
        if problem is None:
            found.append(name)
        elif wanted:
            raise DeviceError(f"The executor {name} cannot be used here: {problem}")
    return tuple(found)
