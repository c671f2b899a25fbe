"""The lab in the background: a supervisor that keeps the server and the workers of a home running, and what it says.

    python -m melete.jobs.lab < plan.json        # what `melete up` does

Each part is a child whose output goes into a rotating log. One that ends is started again, at once and then after
growing pauses; a server that no longer answers is ended first. `<home>/lab/state.json` is the supervisor's account, and
a lock beside it, which the kernel takes back when the supervisor ends, tells whether it lives. However the supervisor
ends, the parts are asked to end too.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

import melete
from melete import settings as configured
from melete import supervision
from melete.errors import MeleteError, ServerError
from melete.jobs.signals import handled
from melete.runs.folder import replace_file
from melete.settings import Settings

READY_S = 600.0
"""Seconds that the server may take to answer for the first time; it may have a model to load."""
PULSE_S = 0.25
CHECK_S = 10.0
DEAF_CHECKS = 6
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""A part that lived this long starts the pauses anew."""
MARGIN_S = 20.0
LOG_BYTES = 4_000_000
KEPT_LOGS = 4
LAST_WORDS = 12


@dataclass(frozen=True)
class Plan:
    """What a lab consists of: the address of its server, the models it serves, and the workers."""

    host: str
    port: int
    models: tuple[str, ...] = ()
    workers: int = 1
    gpus: str = "auto"
    cpu_slots: int = 1
    grace_s: float = 120.0

    @property
    def url(self) -> str:
        """Where the server is, for a browser on this machine."""
        return supervision.url(self.host, self.port)

    def parts(self) -> dict[str, list[str]]:
        """Name to arguments of `melete`."""
        models = [part for model in self.models for part in ("--model", model)] or ["--no-model"]
        # Each GPU is one slot whichever worker has it, so all workers may see all of them.
        work = [
            "worker",
            "--gpus",
            self.gpus,
            "--cpu-slots",
            str(self.cpu_slots),
            "--grace-s",
            str(self.grace_s),
        ]
        workers = {"worker" if self.workers == 1 else f"worker-{n + 1}": work for n in range(self.workers)}
        return {"server": ["serve", "--host", self.host, "--port", str(self.port), *models], **workers}


@dataclass
class Part:
    """One part as the supervisor sees it."""

    pid: int | None = None
    restarts: int = 0
    started_s: float = 0.0
    last_exit: str | None = None


@dataclass
class State:
    """The supervisor's account; `state` is starting, up, stopping, down or failed."""

    state: str
    pid: int
    started_s: float
    plan: Plan
    trouble: str | None = None
    parts: dict[str, Part] = field(default_factory=dict)


def folder(settings: Settings) -> Path:
    """`<home>/lab`, made with access for its owner only."""
    path = settings.home / "lab"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def read(settings: Settings) -> State | None:
    """What the last supervisor of this home said; None if there was none."""
    try:
        found = json.loads((settings.home / "lab" / "state.json").read_text(encoding="utf-8"))
        told = found["plan"]
        plan = Plan(**{**told, "models": tuple(told["models"])})
        parts = {name: Part(**part) for name, part in found["parts"].items()}
        return State(**{**found, "plan": plan, "parts": parts})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def alive(settings: Settings) -> State | None:
    """The account of a supervisor that lives, else None."""
    return read(settings) if supervision.lives(settings.home / "lab" / "lock") else None


def command(*arguments: str) -> list[str]:
    """The command line of `melete ARGUMENTS`, which finds the processes that this Python finds."""
    beside = list(melete.__path__)[1:]
    if not beside:
        return [sys.executable, "-P", "-m", "melete", *arguments]
    code = f"import melete; melete.__path__ += {beside!r}; from melete.__main__ import main; main()"
    return [sys.executable, "-P", "-c", code, *arguments]


class Supervisor:
    """Keeps the parts of a plan running until it is told to stop.

    Args:
        settings: the home.
        plan: what to keep running.
        shown: whether the logs are printed too.
    """

    def __init__(self, settings: Settings, plan: Plan, *, shown: bool = False) -> None:
        self.settings, self.plan, self.shown = settings, plan, shown
        self.state = State("starting", os.getpid(), time.time(), plan)
        self.state.parts = {name: Part() for name in plan.parts()}
        self._stop = supervision.StopRequest()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._due_s = dict.fromkeys(self.state.parts, 0.0)
        self._pause_s = dict.fromkeys(self.state.parts, 0.0)
        self._logs = {name: self._log(name) for name in [*self.state.parts, "lab"]}
        self._deaf, self._checked_s, self._answered = 0, time.monotonic(), False

    def run(self) -> int:
        """Supervises; returns 0, or 1 if the server never came up.

        Raises:
            ServerError: another supervisor has this home.
        """
        with _held(self.settings), handled(lambda _: self.stop()):
            self._say()
            try:
                while not self._stop.wait(PULSE_S):
                    self._keep_up()
                    if self.state.state == "failed":
                        return 1
                return 0
            finally:
                self._end()

    def stop(self, *_: object) -> None:
        """Asks it to stop; processes of jobs save a checkpoint and go back into the queue."""
        self._stop.set()

    def _keep_up(self) -> None:
        """Starts what is due, and notices what has ended or become deaf."""
        now_s = time.monotonic()
        for name, arguments in self.plan.parts().items():
            child = self._children.get(name)
            if child is None and now_s >= self._due_s[name]:
                self._start(name, arguments)
            elif child is not None and child.poll() is not None:
                self._ended(name, child)
        if now_s - self._checked_s > (CHECK_S if self._answered else PULSE_S) and "server" in self._children:
            self._check(now_s)

    def _start(self, name: str, arguments: list[str]) -> None:
        child = subprocess.Popen(
            command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.settings.home,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            preexec_fn=supervision.end_with_parent,
        )
        self._children[name] = child
        reader = threading.Thread(target=self._keep_words, args=(name, child), daemon=True)
        reader.start()
        part = self.state.parts[name]
        part.pid, part.started_s = child.pid, time.time()
        if name == "server":
            self._deaf, self._answered, self._checked_s = 0, False, time.monotonic()
        self._say()

    def _ended(self, name: str, child: subprocess.Popen[bytes]) -> None:
        """Writes down how a part ended, and when it is started again."""
        how = supervision.how_ended(child.wait())
        part = self.state.parts[name]
        part.pid, part.last_exit = None, how
        del self._children[name]
        if name == "server" and self.state.state == "starting":
            self.state.state, self.state.trouble = "failed", f"the server {how}"
            self._say()
            return
        steady = time.time() - part.started_s > STEADY_S
        self._pause_s[name] = (
            0.0 if steady else min(LONGEST_PAUSE_S, self._pause_s[name] * 2 or 0.5 * (part.restarts > 0))
        )
        part.restarts += 1
        self._due_s[name] = time.monotonic() + self._pause_s[name]
        self._note("lab", f"{name} {how}; it is started again in {self._pause_s[name]:.1f} s")
        self._say()

    def _check(self, now_s: float) -> None:
        """Asks the server how it is; the first answer makes the lab `up`."""
        self._checked_s = now_s
        if supervision.answers(f"{self.plan.url}/health", timeout_s=CHECK_S / 2):
            self._deaf, self._answered = 0, True
            if self.state.state == "starting":
                self.state.state = "up"
                self._note("lab", f"serves {self.plan.url}")
                self._say()
            return
        since_s = time.time() - self.state.parts["server"].started_s
        self._deaf += self._answered
        if self._deaf >= DEAF_CHECKS or (since_s > READY_S > 0 and not self._answered):
            self._note("lab", "the server does not answer; it is ended")
            self._children["server"].kill()

    def _end(self) -> None:
        """Asks all parts to stop, waits for what the workers' children save, and kills what is left."""
        if self.state.state != "failed":
            self.state.state = "stopping"
            self._say()
        for child in self._children.values():
            child.terminate()
        until_s = time.monotonic() + self.plan.grace_s + MARGIN_S
        for name, child in self._children.items():
            try:
                child.wait(max(0.1, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            self.state.parts[name].pid = None
        if self.state.state != "failed":
            self.state.state = "down"
        self._say()

    def _log(self, name: str) -> RotatingFileHandler:
        path = folder(self.settings) / "logs"
        path.mkdir(exist_ok=True, mode=0o700)
        return RotatingFileHandler(
            path / f"{name}.log", maxBytes=LOG_BYTES, backupCount=KEPT_LOGS, encoding="utf-8"
        )

    def _keep_words(self, name: str, child: subprocess.Popen[bytes]) -> None:
        """Writes what a part says into its log, from a thread, until it ends."""
        assert child.stdout is not None
        with child.stdout as lines:
            for line in lines:
                self._note(name, line.decode("utf-8", "replace").rstrip())

    def _note(self, name: str, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}"
        # A full disk loses the line and nothing else: the handler must not write its complaint into the void.
        with suppress(OSError):
            self._logs[name].emit(logging.LogRecord(name, logging.INFO, "", 0, line, None, None))
        if self.shown:
            print(f"{name}: {text}", flush=True)

    def _say(self) -> None:
        with suppress(MeleteError):  # a full disk is no reason to end what runs
            replace_file(folder(self.settings) / "state.json", json.dumps(asdict(self.state), indent=1))


def last_words(settings: Settings, name: str = "server") -> list[str]:
    """The end of a part's log."""
    try:
        text = (settings.home / "lab" / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-LAST_WORDS:]


def _held(settings: Settings) -> IO[bytes]:
    """Holds the home for the life of a supervisor."""
    lock = supervision.claim(folder(settings) / "lock")
    if lock is None:
        raise refused(read(settings))
    return lock


def refused(now: State | None) -> ServerError:
    """Two supervisors on one home: the error of the second."""
    where = f", at {now.plan.url}" if now else ""
    return ServerError(
        f"Melete is up in this home already{where}.",
        allowed="One server and its workers for each home folder.",
        next_step="Stop it first with: melete down. Or use another home: MELETE_HOME=FOLDER melete up --port N",
    )


def main() -> int:
    """Reads a plan from stdin and supervises."""
    told = json.loads(sys.stdin.read())
    melete.__path__.extend(told.pop("beside"))
    plan = Plan(**{**told, "models": tuple(told["models"])})
    try:
        return Supervisor(configured.load(), plan).run()
    except MeleteError as error:
        print(f"error: {error.found}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
