"""Forks a child from a worker, which has loaded what every child needs: a short job then starts in milliseconds.

A spawned Python spends over a second of CPU on imports before it does anything. Forking is safe only while the worker
has one thread and no database connection open (SQLite's locks and PostgreSQL's sockets do not survive it); where that
cannot be had, the worker spawns.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from sqlalchemy.engine import make_url


class Forked:
    """A forked child, with what the worker needs of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, that of a signal below zero; None while it lives."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code


def is_safe(database: str) -> bool:
    """Whether this process may be forked: on Linux, with one thread, and with no connection to a SQLite database open.

    SQLite keeps what it knows of an open file for the whole process, and would go on with it in the child.
    """
    if sys.platform != "linux" or threading.active_count() > 1:
        return False
    path = make_url(database).database
    if not database.startswith("sqlite") or path in (None, "", ":memory:"):
        return True
    name = str(Path(str(path)).resolve())
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").startswith(name):
                return False
    return True


def load() -> None:
    """Imports what nearly every child needs."""
    import jinja2  # noqa: F401
    import yaml  # noqa: F401

    from melete.jobs import execute  # noqa: F401
    from melete.store import index  # noqa: F401


def fork(
    main: Callable[[list[str]], int], arguments: list[str], environ: Mapping[str, str], log: IO[bytes]
) -> Forked:
    """Starts `main(arguments)` in a forked child with a session, an environment and an output of its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Forked(pid)
    code = 1
    try:
        _settle_in(arguments, environ, log)
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # the stack above belongs to the worker and must not be unwound here
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _settle_in(arguments: list[str], environ: Mapping[str, str], log: IO[bytes]) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") < 65_536 else 65_536)
    # What the worker prints through may be something else than its descriptors.
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False, buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["melete.jobs.child", *arguments]
