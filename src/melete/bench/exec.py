"""Runs a harness as a child process with a session's environment, and ends it with everything it started.

The command is a list of arguments and no shell reads it. The child is the leader of a process group of its own: at the
time limit, at Ctrl-C and at its own end the whole group is ended, first kindly, then for good. At a terminal the group
is put into the foreground, so that an interactive harness works and Ctrl-C is its own. Standard input and output and
the exit code pass through. The harness has the rights of the user who starts it: this is no sandbox. A process that
leaves its group escapes the kill, but not the end of its credential.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from melete.errors import ConfigError

GRACE_S = 3.0
"""Seconds between the kind end and the other one."""
LARGEST_OUTPUT = 1_000_000
"""Bytes of its output that are kept for a checker; the rest only passes through."""


@dataclass(frozen=True)
class Ended:
    """How a harness ended.

    Attributes:
        exit_code: its own; 128 + the signal that killed it, as a shell says it.
        reason: exited, timeout or interrupted.
        wall_s: seconds it took.
        output: what it printed on stdout, cut; None unless asked for.
    """

    exit_code: int
    reason: str
    wall_s: float
    output: str | None = None


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    workdir: Path,
    *,
    timeout_s: float | None = None,
    catch_output: bool = False,
    quiet: bool = False,
) -> Ended:
    """Runs a command to its end.

    Args:
        command: program and arguments; the program is looked for on the environment's PATH.
        environment: the whole environment of the child.
        workdir: where it starts.
        timeout_s: seconds it may take.
        catch_output: whether its stdout is kept for a checker, besides passing through.
        quiet: no input, and what it prints goes nowhere: for unattended playing.

    Raises:
        ConfigError: there is no such program.
    """
    program = _find(command, environment, workdir)
    began_s = time.monotonic()
    sink = subprocess.DEVNULL if quiet else None
    with _forwarding() as forwarded:
        child = subprocess.Popen(
            [program, *command[1:]],
            env=dict(environment),
            cwd=workdir,
            stdin=sink,
            stdout=subprocess.PIPE if catch_output else sink,
            stderr=sink,
            process_group=0,
        )
        caught = _Output(child, passing=not quiet) if catch_output else None
        forwarded.to(child)
        with _foreground(child, wanted=not quiet):
            reason = _wait(child, timeout_s)
    code = child.returncode
    if reason == "exited" and (forwarded.number or code == -signal.SIGINT):
        reason = "interrupted"
    output = caught.text() if caught else None
    return Ended(128 - code if code < 0 else code, reason, time.monotonic() - began_s, output)


def _wait(child: subprocess.Popen[bytes], timeout_s: float | None) -> str:
    """Waits for the end of a child, then ends what is left of its group; says why it ended."""
    try:
        child.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return "timeout"
    finally:
        end_group(child)
    return "exited"


def end_group(child: subprocess.Popen[bytes]) -> None:
    """Ends a process group: SIGTERM, some seconds, SIGKILL; also what its leader left behind."""
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        _signal_group(child.pid, signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(leader: int, number: int) -> None:
    # A group lives as long as any member, so the leader's number cannot be another's group while one is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _find(command: Sequence[str], environment: Mapping[str, str], workdir: Path) -> str:
    program = command[0]
    if os.sep in program:
        found = str(workdir / program) if os.access(workdir / program, os.X_OK) else None
    else:
        found = shutil.which(program, path=environment.get("PATH"))
    if found is None:
        raise ConfigError(
            f"There is no program {program!r} on the PATH of the harness.",
            next_step="Install the harness, or give the whole path of its program.",
        )
    return found


class _Output:
    """Keeps the beginning of what a child prints, and passes all of it on."""

    def __init__(self, child: subprocess.Popen[bytes], *, passing: bool) -> None:
        self._kept = bytearray()
        self._passing = passing
        self._child = child
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        while data := os.read(self._child.stdout.fileno(), 65536):
            self._kept += data[: LARGEST_OUTPUT - len(self._kept)]
            if self._passing:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()

    def text(self) -> str:
        self._thread.join(GRACE_S)
        return bytes(self._kept).decode("utf-8", "replace")


@dataclass
class _Forwarded:
    """Passes signals on to the group of a child; one that came before there was a child is passed on then."""

    number: int = 0
    child: subprocess.Popen[bytes] | None = None

    def to(self, child: subprocess.Popen[bytes]) -> None:
        """Names the child."""
        self.child = child
        if self.number:
            self._pass_on(child)

    def came(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal; a second one ends the group for good."""
        again, self.number = bool(self.number), number
        if self.child is not None:
            if again:
                _signal_group(self.child.pid, signal.SIGKILL)
            else:
                self._pass_on(self.child)

    def _pass_on(self, child: subprocess.Popen[bytes]) -> None:
        def lose_patience() -> None:
            if child.poll() is None:
                _signal_group(child.pid, signal.SIGKILL)

        _signal_group(child.pid, self.number)
        patience = threading.Timer(GRACE_S, lose_patience)
        patience.daemon = True
        patience.start()


@contextlib.contextmanager
def _forwarding() -> Iterator[_Forwarded]:
    """Takes SIGINT, SIGTERM and SIGHUP for a child, from before it is started; only the main thread may do that."""
    forwarded = _Forwarded()
    if threading.current_thread() is not threading.main_thread():
        yield forwarded
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, forwarded.came) for number in numbers]
    try:
        yield forwarded
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _foreground(child: subprocess.Popen[bytes], *, wanted: bool) -> Iterator[None]:
    """Lends the terminal to the child's group, where there is a terminal."""
    terminal = None
    if wanted:
        with contextlib.suppress(OSError, ValueError):
            terminal = sys.stdin.fileno() if os.isatty(sys.stdin.fileno()) else None
    own = threading.current_thread() is threading.main_thread()
    if terminal is None or not own or os.tcgetpgrp(terminal) != os.getpgrp():
        yield
        return
    # Whoever is not in the foreground is stopped by SIGTTOU when it takes the terminal back.
    handlers = {signal.SIGTTOU: signal.signal(signal.SIGTTOU, signal.SIG_IGN)}

    def stop_too(number: int, frame: FrameType | None) -> None:
        """Ctrl-Z stopped the harness: gives the terminal to the shell, and goes on with the harness when told to."""
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG) is not None:
                os.tcsetpgrp(terminal, os.getpgrp())
                os.kill(os.getpid(), signal.SIGSTOP)
                _lend(terminal, child)

    try:
        _lend(terminal, child)
        handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, stop_too)
        stop_too(signal.SIGCHLD, None)  # it may have stopped before anybody listened
        yield
    finally:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(terminal, os.getpgrp())
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _lend(terminal: int, child: subprocess.Popen[bytes]) -> None:
    """Puts the child's group into the foreground, if we are there, and wakes it."""
    with contextlib.suppress(OSError):
        if os.tcgetpgrp(terminal) == os.getpgrp():
            os.tcsetpgrp(terminal, child.pid)
        _signal_group(child.pid, signal.SIGCONT)
