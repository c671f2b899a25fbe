"""Runs a Python program that nobody trusts, such as one written by a model, and says how it ended.

What is in force, on Linux (`Result.protections` says it for each call):

- its own mount, process, network, IPC and host-name namespaces, and an unused user id (root) or a user namespace
  (everybody else): the program sees an empty root with the Python installation read-only, a private tmpfs at `/tmp`
  that vanishes with it, no `/proc`, no home, no `/etc/passwd`, no other process, and no network interface;
- no capabilities, `no_new_privs`, and a seccomp filter: no new process, no other program, no socket, no tracing;
- limits on memory, CPU time, threads, open files and file size; on wall time and on output, kept from outside: the
  first process of the namespace is killed and everything in it with it;
- a scrubbed environment, and no inherited descriptor.

Where the kernel allows no namespaces (many containers), Landlock takes the place of the mount tree; with neither, or
not on Linux, `SandboxError` is raised unless `allow_weak` accepts limits (and seccomp on Linux) alone.

What it does not cover: bugs of the kernel; timing and other side channels between programs on one processor; the
world-readable files of the system libraries and the Python installation, which the program can read; the clock and the
kernel's name and version, which it can see. Under Landlock it can also see whether a file exists, and fill the disk
with many files until the time is up. Tests show each of these limits that can be shown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import melete
from melete.errors import SandboxError

SETUP_TIMEOUT_S = 30.0
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL, errno.ENOENT)
"""Errors by which a kernel says that it does not offer a protection; any other is a failure."""
SOURCE = Path(melete.__file__).parent.parent
_START = "import sys; sys.path.insert(0, {!r}); from melete.evals.jail.child import main; main({}, {})"


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    timeout_s: float = 5.0
    memory_mb: int = 512
    files_mb: int = 32
    output_bytes: int = 100_000
    threads: int = 16


@dataclass(frozen=True)
class Result:
    """How a program ended.

    `outcome` is `finished` (exit code 0), `failed` (another exit code: an exception or `sys.exit(n)`), `killed` (a
    signal), `timeout` or `output_limit`. `stdout` and `stderr` are cut at `Limits.output_bytes` together. `wall_s` and
    `cpu_s` are of the program, without the set-up; `total_s` is the whole call.
    """

    outcome: str
    exit_code: int | None
    stdout: str
    stderr: str
    wall_s: float
    cpu_s: float
    total_s: float
    protections: tuple[str, ...]


@dataclass(frozen=True)
class Grade:
    """Whether a program passed its checks: they ran to their end and made `calls` calls that were answered."""

    passed: bool
    reason: str
    calls: int
    result: Result


def run(
    program: str, limits: Limits | None = None, *, packages: bool = False, allow_weak: bool = False
) -> Result:
    """Runs a program as `__main__`, with `/tmp` (Landlock: a folder of its own) as the working folder.

    Args:
        program: Python source.
        limits: what it may use.
        packages: whether the installed packages can be imported (read-only).
        allow_weak: whether to run it where the kernel offers neither namespaces nor Landlock.

    Raises:
        SandboxError: the sandbox could not be set up; nothing was run.
    """
    return _run(program, limits or Limits(), packages, allow_weak, None)[0]


def check(
    program: str,
    entry_point: str,
    checks: str,
    *,
    setup: str = "",
    limits: Limits | None = None,
    packages: bool = False,
    allow_weak: bool = False,
) -> Grade:
    """Grades a program by checks that call one of its functions; see `jail/checks.py` for how and for its limits.

    The program passes if the checks ran to their last line in their own process and called the function at least
    once. Leaving early, printing success, patching `assert` or returning odd objects cannot pass.

    Args:
        program: Python source that defines `entry_point`.
        entry_point: name of the function, which the checks call under the same name.
        checks: Python source that raises if the function is wrong.
        setup: Python source with definitions that the checks need.
        limits: what program and checks may use, each for itself.
        packages: whether the installed packages can be imported (read-only).
        allow_weak: see `run`.

    Raises:
        SandboxError: the sandbox could not be set up; nothing was run.
    """
    nonce = secrets.token_hex(16)
    grading = {"setup": setup, "entry_point": entry_point, "code": checks, "nonce": nonce}
    result, verdict = _run(program, limits or Limits(), packages, allow_weak, grading)
    if verdict.get("nonce") != nonce:
        reason = {"finished": "the program ended before the checks", "failed": _last_line(result.stderr)}
        return Grade(False, reason.get(result.outcome, "") or result.outcome, 0, result)
    calls = int(verdict["calls"])
    if verdict["passed"] and not calls:
        return Grade(False, "the checks did not call the function", 0, result)
    return Grade(bool(verdict["passed"]), str(verdict["reason"]), calls, result)


def _run(
    program: str, limits: Limits, packages: bool, allow_weak: bool, grading: dict[str, str] | None
) -> tuple[Result, dict[str, Any]]:
    """Tries the levels from strong to weak; returns the result and the verdict of the checks."""
    levels = ["namespaces", "landlock"] if sys.platform == "linux" else []
    refused = []
    for level in levels + (["limits"] if allow_weak else []):
        if level in _unavailable:
            refused.append(f"{level}: {_unavailable[level]}")
            continue
        lines, result = _attempt(program, limits, packages, level, grading)
        if "unavailable" not in lines[-1]:
            return result, lines[-1].get("verdict") or {}
        reason = str(lines[-1]["unavailable"])
        refused.append(f"{level}: {reason}")
        if lines[-1].get("errno") not in REFUSALS:
            break  # out of memory, of namespaces, …: no reason to go on with less
        _unavailable[level] = reason
    raise SandboxError(
        "The sandbox could not be set up"
        + (f" ({'; '.join(refused)})." if refused else f" on {sys.platform}."),
        allowed="It needs Linux with user namespaces (or root), or Landlock (Linux 6.2 and newer).",
        next_step="In a container, allow user namespaces. Only for programs you trust: allow_weak=True.",
    )


_unavailable: dict[str, str] = {}
"""Level to reason, remembered for the life of this process, so that each is tried once."""


def _attempt(
    program: str, limits: Limits, packages: bool, level: str, grading: dict[str, str] | None
) -> tuple[list[dict[str, Any]], Result]:
    """One child process at one level; returns the lines of its report and the result."""
    started = time.monotonic()
    work = tempfile.mkdtemp(prefix="melete-sandbox-")
    spec = {
        "level": level,
        "program": program,
        "entry_point": grading["entry_point"] if grading else "",
        "work": work,
        "stdlib": os.path.realpath(os.path.dirname(os.__file__)),
        "packages": str(_site_packages()) if packages else "",
        "source": str(SOURCE),
        **dataclasses.asdict(limits),
    }
    report, report_end = os.pipe()
    try:
        with _file(spec) as spec_file, contextlib.ExitStack() as stack:
            stack.callback(os.close, report)
            checks = stack.enter_context(_file(grading)).fileno() if grading else -1
            try:
                start = _START.format(str(SOURCE), report_end, checks)
                child = subprocess.Popen(
                    [os.path.realpath(sys.executable), "-S", "-s", "-P", "-c", start],
                    stdin=spec_file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=[report_end] + ([checks] if checks >= 0 else []),
                    env=_environment("/tmp" if level == "namespaces" else work),
                    cwd="/",
                    start_new_session=True,
                )
            finally:
                os.close(report_end)
            with child:
                try:
                    return _watch(child, report, limits, started)
                except BaseException:  # Ctrl-C as well: nothing is left behind
                    _kill(child)
                    raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _watch(
    child: subprocess.Popen[bytes], report: int, limits: Limits, started: float
) -> tuple[list[dict[str, Any]], Result]:
    """Reads output and report until all have ended, or until time or output is used up."""
    assert child.stdout is not None
    assert child.stderr is not None
    stdout, stderr = child.stdout.fileno(), child.stderr.fileno()
    read = {descriptor: bytearray() for descriptor in (report, stdout, stderr)}
    deadline, ready, cut = started + SETUP_TIMEOUT_S, False, ""
    with selectors.DefaultSelector() as selector:
        for descriptor in read:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map() and not cut:
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fd)
                read[key.fd] += data
            if not ready and b"\n" in read[report]:
                ready, deadline = True, time.monotonic() + limits.timeout_s
            if len(read[stdout]) + len(read[stderr]) > limits.output_bytes:
                cut = "output_limit"
            elif time.monotonic() >= deadline:
                cut = "timeout"
        if cut:
            _kill(child)
        child.wait()
    if cut and not ready:
        raise SandboxError(f"The sandbox was not ready after {SETUP_TIMEOUT_S:.0f} s; nothing was run.")
    lines = [json.loads(line) for line in bytes(read[report]).splitlines() if line.endswith(b"}")]
    if not lines:
        said = _last_line(bytes(read[stderr]).decode(errors="replace"))
        raise SandboxError(f"The sandbox's child process ended before it was ready: {said or 'no message'}.")
    room = limits.output_bytes
    out = bytes(read[stdout][:room])
    err = bytes(read[stderr][: room - len(out)])
    return lines, _result(cut, lines, out, err, time.monotonic() - started)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kills the launcher's process group; in a namespace everything else dies with it."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _result(cut: str, lines: list[dict[str, Any]], stdout: bytes, stderr: bytes, total_s: float) -> Result:
    ending = lines[-1]
    exit_code, end_signal = ending.get("exit"), ending.get("signal")
    outcome = "failed" if exit_code else "finished" if exit_code == 0 or "verdict" in ending else "killed"
    if end_signal == signal.SIGXCPU:
        outcome = "timeout"
    return Result(
        outcome=cut or outcome,
        exit_code=exit_code,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
        wall_s=ending.get("wall_s", total_s),
        cpu_s=ending.get("cpu_s", 0.0),
        total_s=total_s,
        protections=tuple(lines[0].get("protections", ())),
    )


@contextlib.contextmanager
def _file(values: dict[str, Any]) -> Iterator[IO[str]]:
    """A nameless file with JSON in it, at its start; unlike a pipe it takes any length at once."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        json.dump(values, file)
        file.flush()
        file.seek(0)
        yield file


def _environment(home: str) -> dict[str, str]:
    """The whole environment of the program: nothing is inherited. One hash seed, so that a run can be repeated."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    return {"HOME": home, "TMPDIR": home, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PATH": "", **threads}


def _site_packages() -> Path:
    import numpy

    return Path(numpy.__file__).resolve().parent.parent


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""
