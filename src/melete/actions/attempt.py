"""Runs a tool's function once: inline, in a thread with a time limit, or in a child process that can be killed.

- *inline* (no `timeout_s`): for worlds in memory. Nothing bounds it.
- *thread* (`timeout_s`): bounds how long the caller waits. When the time is up, an exception is raised inside the
  thread, which ends a loop in Python; a call that hangs in C (a socket, `time.sleep`) goes on in the background until
  it returns, and may still act. For code that is trusted.
- *child process* (`sandbox=True`): a process and a group of its own, in an empty temporary folder, without this
  process's environment (`PATH` and `LANG` apart) or descriptors, with a limit on memory and output; it and everything
  it started are killed when the time is up. The function has to be importable and takes and returns JSON, so it cannot
  be a method of a world in memory. It keeps a crash, a hang and a leak away; it does not hold back a program that means
  harm: that is what `melete.evals.sandbox` is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import inspect
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMORY_MB = 2048
OUTPUT_BYTES = 64_000_000
_START = "from melete.actions.child import main; main()"


class ToolFailure(Exception):
    """Raised by a tool: it did not succeed, and changed nothing. The text is for the model to read.

    Args:
        text: what went wrong and what to do instead, as a sentence.
        retry: whether the same call may succeed a moment later, such as when a service is busy.
    """

    def __init__(self, text: str, *, retry: bool = False) -> None:
        self.retry = retry
        super().__init__(text)


class ToolTimeout(Exception):
    """The function had not returned when its time was up; whether it acted is not known."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(f"no answer within {timeout_s:g} s")


class ToolCrash(Exception):
    """The child process ended without an answer, or raised something other than a `ToolFailure`."""


class _Stopped(BaseException):
    """Raised inside a thread whose time is up."""


def inline(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Calls the function here; a coroutine is run to its end, in a loop of its own."""
    value = function(**arguments)
    if not inspect.iscoroutine(value):
        return value
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(value)
    with ThreadPoolExecutor(1) as pool:  # this thread's loop is the caller's, who waits
        return pool.submit(asyncio.run, value).result()


def in_thread(function: Callable[..., Any], arguments: Mapping[str, Any], timeout_s: float) -> Any:
    """Calls the function in a thread of its own.

    Raises:
        ToolTimeout: it had not returned after `timeout_s`.
    """
    ended: list[tuple[bool, Any]] = []
    context = contextvars.copy_context()

    def work() -> None:
        with contextlib.suppress(_Stopped):
            try:
                ended.append((True, context.run(inline, function, arguments)))
            except Exception as error:  # handed to the caller below
                ended.append((False, error))

    thread = threading.Thread(target=work, daemon=True, name="tool")
    thread.start()
    thread.join(timeout_s)
    if not ended:
        if thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(_Stopped)
            )
        raise ToolTimeout(timeout_s)
    ok, value = ended[0]
    if not ok:
        raise value
    return value


def in_process(function: Callable[..., Any], arguments: Mapping[str, Any], timeout_s: float) -> Any:
    """Calls the function in a child process.

    Raises:
        ToolTimeout: it had not returned after `timeout_s`.
        ToolFailure: the function raised one.
        ToolCrash: the function raised something else, or its process died.
    """
    module = sys.modules[function.__module__]
    order = {
        "module": function.__module__,
        "file": getattr(module, "__file__", None) if function.__module__ == "__main__" else None,
        "name": function.__qualname__,
        "arguments": dict(arguments),
        "memory_mb": MEMORY_MB,
    }
    with tempfile.TemporaryDirectory(prefix="melete-tool-", ignore_cleanup_errors=True) as folder:
        done = run_group(
            [sys.executable, "-s", "-c", _START],
            stdin=json.dumps(order).encode(),
            timeout_s=timeout_s,
            folder=Path(folder),
            environment={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "HOME": folder},
            until=b"\n",
        )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise ToolCrash(f"its process ended with {done.exit_code} and no answer. {done.last_line}") from None
    if "value" in answer:
        return answer["value"]
    if answer["failure"]:
        raise ToolFailure(answer["error"], retry=answer["retry"])
    raise ToolCrash(answer["error"])


@dataclass(frozen=True)
class Finished:
    """A process that ended by itself; `stdout` and `stderr` are cut at `OUTPUT_BYTES` together."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def last_line(self) -> str:
        """Last line of stderr, cut to 300 characters."""
        lines = self.stderr.decode(errors="replace").split("\n")
        return next((line[:300] for line in reversed(lines) if line.strip()), "")


def run_group(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout_s: float,
    folder: Path,
    environment: Mapping[str, str],
    until: bytes | None = None,
) -> Finished:
    """Runs a program, never through a shell, as the head of a process group that is killed at the end.

    Args:
        argv: program and arguments.
        stdin: what it reads.
        timeout_s: wall time that it has.
        folder: its working folder.
        environment: its environment beside `PATH` and `LANG`; nothing else is inherited.
        until: bytes after which no more output is awaited.

    Raises:
        ToolTimeout: the time was up; the group was killed.
        ToolCrash: the program could not be started, or wrote more than `OUTPUT_BYTES`.
    """
    inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        try:
            child = subprocess.Popen(
                list(argv),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env={**inherited, **environment},
                start_new_session=True,
            )
        except OSError as error:
            raise ToolCrash(f"{argv[0]} could not be started: {error.strerror}.") from error
    try:
        with child:
            try:
                stdout, stderr = _read(child, deadline, until)
                if until is None:
                    child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise ToolTimeout(timeout_s) from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
    finally:
        child.wait()
    return Finished(child.returncode, stdout, stderr)


def _read(child: subprocess.Popen[bytes], deadline: float, until: bytes | None) -> tuple[bytes, bytes]:
    """Output up to `until` or its end.

    Raises:
        TimeoutExpired: the deadline passed.
        ToolCrash: more output than allowed.
    """
    assert child.stdout is not None
    assert child.stderr is not None
    parts = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    out = parts[child.stdout.fileno()]
    with selectors.DefaultSelector() as selector:
        for descriptor in parts:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map() and not (until and until in out[-65536:]):
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fd)
                parts[key.fd] += data
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(child.args, 0)
            if sum(map(len, parts.values())) > OUTPUT_BYTES:
                raise ToolCrash(f"it wrote more than {OUTPUT_BYTES:,} bytes.")
    return bytes(out), bytes(parts[child.stderr.fileno()])
