"""What the background programs of a home share: locks that say who lives, listening, being started and ended.

A lock is the truth about life: the kernel lets go of it when its holder ends, however that is, so a stale file or a pid
that another program got since is never mistaken for one that runs.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from melete.errors import ServerError

HELD_S = 2.0
"""A new holder tries this long, because whoever asks whether one lives has the lock for a moment."""
WAITING_CALLS = 2048


class StopRequest:
    """What a signal handler asks of a loop that waits for it in the same thread.

    A `threading.Event` cannot be that: a handler that comes while the thread holds the event's lock waits for ever.
    """

    def __init__(self) -> None:
        self._made = False
        self._wake: SimpleQueue[None] = SimpleQueue()  # its `put` may interrupt its `get`

    def set(self, *_: object) -> None:
        """Asks to stop; may be called from a signal handler and from any thread."""
        self._made = True
        self._wake.put(None)

    def is_set(self) -> bool:
        """Whether somebody has asked."""
        return self._made

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits, in one thread only, until somebody asks or the time is over; returns whether somebody has asked."""
        if not self._made:
            with suppress(Empty):
                self._wake.get(timeout=timeout_s)
        return self._made


def lives(lock: Path) -> bool:
    """Whether a process holds a lock."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def claim(lock: Path) -> IO[bytes] | None:
    """Takes a lock for the life of this process; None if another one has it."""
    file = lock.open("ab")
    deadline = time.monotonic() + HELD_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                return None
            time.sleep(0.05)


@contextmanager
def one_at_a_time(lock: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lets one process at a time into a block; without `wait`, False where another one is in it."""
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def bind(host: str, port: int, command: str, *, error: type[ServerError] = ServerError) -> socket.socket:
    """A listening socket, bound before anything slow begins; port 0 takes a free one.

    Args:
        host: address to listen on.
        port: from 0 to 65535.
        command: what listens, for the next step of a message.
        error: class of the error.

    Raises:
        ServerError: (or `error`) the port is taken, this user may not have it, or the address is not of this machine.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(WAITING_CALLS)
        return listener
    except OSError as problem:
        listener.close()
        if problem.errno == errno.EADDRINUSE:
            raise error(
                f"Port {port} on {host} is already in use.",
                allowed=f"Another program, perhaps another '{command}', listens there.",
                next_step=f"Take another one: {command} --port {port + 1 if port < 65535 else 8675}",
            ) from problem
        if problem.errno == errno.EACCES:
            raise error(
                f"Port {port} needs rights that you do not have.",
                next_step=f"Take one above 1023: {command} --port 8675",
            ) from problem
        raise error(
            f"Cannot listen on {host}, port {port}: {problem.strerror or problem}.",
            next_step="Try --host 127.0.0.1",
        ) from problem


def url(host: str, port: int) -> str:
    """The address of a server as one types it on its own machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def answers(url: str, *, timeout_s: float) -> bool:
    """Whether a GET of a URL is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False


def spawn(
    module: str,
    plan: str,
    *,
    said: Path,
    folder: Path,
    environ: Mapping[str, str],
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Starts a module of ours in a session of its own, so that it lives on when the terminal is closed.

    Args:
        module: what to run; it reads `plan` from stdin.
        plan: text without secrets.
        said: file for what it says before it has a log, such as an error while it is imported.
        folder: where it starts.
        environ: its whole environment.
        descriptors: open files that it inherits.
    """
    with said.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            cwd=folder,
            env=dict(environ),
            pass_fds=descriptors,
            start_new_session=True,
        )
    assert child.stdin is not None
    child.stdin.write(plan.encode())
    child.stdin.close()
    return child


def end_with_parent() -> None:
    """Runs in a new child: the kernel asks it to end when its parent is gone, however that ended (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def how_ended(code: int) -> str:
    """The exit code of a child in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
