"""The child process of the sandbox: shuts itself in, then runs the program one process further down.

    launcher ── unshares, waits ──► keeper (first process of the namespace) ──► program
                                    keeps the report, runs checks, dies last

The launcher reads one JSON spec from descriptor 0. The keeper writes JSON lines to the report: first the protections in
force, then how the program ended. When the keeper dies, the kernel kills everything in its namespace; when the launcher
dies, it kills the keeper. Levels, tried in order by the parent: `namespaces`, `landlock`, `limits`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import types
from typing import Any, NoReturn

from melete.evals.jail import checks as grading
from melete.evals.jail import kernel, seccomp

SYSTEM_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
WORK = "/tmp"


def main(report: int, checks: int) -> None:
    """Runs the spec on descriptor 0; see the head of this file.

    Args:
        report: descriptor for the report.
        checks: descriptor of the checks, -1 if there are none. Only the keeper reads it, after the program's process
            was forked.
    """
    with os.fdopen(0, closefd=False) as file:
        spec = json.load(file)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    alive, launched = os.pipe()
    try:
        user_namespace = kernel.enter_namespaces() if spec["level"] == "namespaces" else False
    except OSError as error:
        _write(report, {"unavailable": str(error), "errno": error.errno})
        return
    launcher = os.getpid()
    keeper = os.fork()
    if keeper == 0:
        os.close(launched)
        _keep(spec, report, checks, alive, 0x40000000 + launcher, user_namespace)
    os.close(report)
    os.close(alive)
    os.write(launched, b"1")
    os.waitpid(keeper, 0)


def _keep(
    spec: dict[str, Any], report: int, checks: int, alive: int, user_id: int, user_namespace: bool
) -> NoReturn:
    try:
        protections = _shut_in(spec, user_id, user_namespace)
    except OSError as error:
        _write(report, {"unavailable": str(error), "errno": error.errno})
        os._exit(1)
    if os.read(alive, 1) != b"1":  # the launcher died before `die_with_parent` took effect
        os._exit(1)
    _write(report, {"protections": protections})
    sys.path += [spec["packages"]] if spec["packages"] else []
    questions, answers = os.pipe(), os.pipe()
    started = time.monotonic()
    program = os.fork()
    if program == 0:
        for descriptor in (report, checks, alive, questions[1], answers[0]):
            if descriptor >= 0:
                os.close(descriptor)
        _run_program(spec, questions[0], answers[1])
    os.close(questions[0])
    os.close(answers[1])
    _last_locks(spec, may_signal=program)
    ending: dict[str, Any] = {}
    if checks >= 0:
        with (
            os.fdopen(questions[1], "w") as out,
            os.fdopen(answers[0], errors="replace") as back,
            os.fdopen(checks) as file,
        ):
            ending["verdict"] = grading.run_checks(json.load(file), out, back)
            os.kill(program, signal.SIGKILL)
    _, status, usage = os.wait4(program, 0)
    ending |= {
        "exit": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        "wall_s": time.monotonic() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }
    _write(report, ending)
    os._exit(0)


def _shut_in(spec: dict[str, Any], user_id: int, user_namespace: bool) -> list[str]:
    """Everything that holds for keeper and program alike; returns the names of the protections."""
    protections = []
    if spec["level"] == "namespaces":
        _build_root(spec, user_id, user_namespace)
        protections += ["mount", "pid", "net", "ipc", "uts"]
        protections.append("user" if user_namespace else "uid")
        if not user_namespace:
            kernel.drop_bounding_set()
            os.setgroups([])
            os.setresgid(user_id, user_id, user_id)
            os.setresuid(user_id, user_id, user_id)
        os.chdir(WORK)
    else:
        os.chdir(spec["work"])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        kernel.drop_capabilities()
        kernel.die_with_parent()
        kernel.forbid_new_privileges()
        protections.append("no_new_privs")
    megabyte = 1 << 20
    limits = [
        (resource.RLIMIT_AS, spec["memory_mb"] * megabyte),
        (resource.RLIMIT_CPU, int(spec["timeout_s"]) + 2),
        (resource.RLIMIT_FSIZE, spec["files_mb"] * megabyte),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, spec["threads"] + 2),
        (resource.RLIMIT_CORE, 0),
    ]
    for limit, value in limits:
        if limit == resource.RLIMIT_NPROC and spec["level"] != "namespaces":
            continue  # counts all processes of the user; without namespaces seccomp refuses processes
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    if spec["level"] == "landlock":
        kernel.require_landlock()
        protections.append("landlock")
    if seccomp.supported():
        protections.append("seccomp")
    return [*protections, "rlimits"]


def _last_locks(spec: dict[str, Any], may_signal: int) -> None:
    """Landlock and seccomp: last, because the keeper has to fork before they forbid it."""
    if spec["level"] == "landlock":
        kernel.restrict_files(_readable(spec), spec["work"])
    if seccomp.supported():
        seccomp.install(may_signal, shares_files=spec["level"] != "namespaces")


def _readable(spec: dict[str, Any]) -> list[str]:
    packages = [spec["packages"]] if spec["packages"] else []
    devices = [path for path in DEVICES if path != "/dev/null"]
    paths = [spec["stdlib"], *packages, *SYSTEM_LIBRARIES, *devices]
    return [path for path in paths if os.path.exists(path)]


def _build_root(spec: dict[str, Any], user_id: int, user_namespace: bool) -> None:
    """A new root: an empty tmpfs, read-only, with the Python installation and one small writable folder."""
    root = spec["work"]
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("sandbox", root, "tmpfs", flags, "size=1m,nr_inodes=1k,mode=755")
    os.makedirs(root + WORK)  # first, so that it does not hide an installation that lies below it
    options = f"size={spec['files_mb']}m,nr_inodes=4k,mode=700"
    kernel.mount("work", root + WORK, "tmpfs", flags | kernel.MS_NOEXEC, options)
    if not user_namespace:
        os.chown(root + WORK, user_id, user_id)
    for path in [*_readable(spec), "/dev/null"]:
        target = root + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            if not os.path.lexists(target):
                os.symlink(os.readlink(path), target)
            continue
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        kernel.bind_read_only(path, target, devices=path in DEVICES)
    kernel.change_root(root)
    kernel.make_read_only("/")


def _run_program(spec: dict[str, Any], questions: int, answers: int) -> NoReturn:
    """The last process: forgets Melete, locks the last locks and runs the program as `__main__`."""
    if sys.platform == "linux":
        kernel.die_with_parent()
    _last_locks(spec, may_signal=os.getpid())
    main_module = types.ModuleType("__main__")
    for name in [name for name in sys.modules if name.partition(".")[0] == "melete"]:
        del sys.modules[name]
    sys.modules["__main__"] = main_module
    sys.path[:] = [path for path in sys.path if path != spec["source"]]
    sys.argv[:] = [""]
    sys.dont_write_bytecode = True
    code = 0
    try:
        exec(compile(spec["program"], "<program>", "exec"), main_module.__dict__)
        if spec["entry_point"]:
            with os.fdopen(questions) as lines, os.fdopen(answers, "w") as out:
                grading.serve(main_module.__dict__, spec["entry_point"], lines, out)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:  # the program's own failure: shown as Python shows it
        import traceback  # here, because most programs end well and the import costs milliseconds

        own = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, own)
        code = 1
    sys.exit(code)


def _write(report: int, message: dict[str, Any]) -> None:
    os.write(report, json.dumps(message).encode() + b"\n")
