"""The sandbox against programs that try to do harm, at both of its levels, and what it does not cover."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from melete.errors import SandboxError
from melete.evals import sandbox
from melete.evals.jail import seccomp
from melete.evals.sandbox import Limits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
SOURCE = Path(sandbox.__file__).parents[2]
QUICK = Limits(timeout_s=1.0)


@pytest.fixture(params=["namespaces", "landlock"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs with namespaces, and as on a kernel that refuses them."""
    monkeypatch.setattr(
        sandbox, "_unavailable", {"namespaces": "refused"} if request.param == "landlock" else {}
    )
    try:
        protections = sandbox.run("").protections
    except SandboxError as error:
        pytest.skip(str(error))
    if request.param == "namespaces" and "mount" not in protections:
        pytest.skip("this machine allows no namespaces")
    return str(request.param)


def test_program_that_prints_gives_its_output_and_exit_code(level: str) -> None:
    result = sandbox.run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (result.outcome, result.exit_code) == ("failed", 3)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert {"seccomp", "rlimits", "no_new_privs"} < set(result.protections)


def test_program_that_is_ordinary_python_works(level: str) -> None:
    program = (
        "import asyncio, collections, decimal, hashlib, json, re, sqlite3, tempfile, threading\n"
        "with tempfile.TemporaryFile() as f: f.write(b'x')\n"
        "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
        "asyncio.run(asyncio.sleep(0))\n"
        "print(__name__, sqlite3.connect(':memory:').execute('select 1').fetchone())\n"
    )
    result = sandbox.run(program)
    assert (result.outcome, result.stdout) == ("finished", "thread\n__main__ (1,)\n"), result.stderr


def test_write_outside_the_work_folder_is_refused(level: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    targets = [
        str(tmp_path / "pwned"),
        os.path.expanduser("~/pwned"),
        os.path.dirname(os.__file__) + "/pwned.py",
    ]
    for target in targets:
        result = sandbox.run(f"open({target!r}, 'w').write('x')")
        assert result.outcome == "failed", target
        assert not os.path.exists(target)


def test_unlink_by_the_posix_module_is_refused(level: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    tmp_path.chmod(0o777)
    assert sandbox.run(f"import posix; posix.unlink({str(victim)!r})").outcome == "failed"
    assert victim.exists()


@pytest.mark.parametrize("call", ["os.chmod(path, 0o777)", "os.utime(path, (0, 0))", "os.truncate(path, 0)"])
def test_mode_time_and_length_of_a_file_of_the_host_stay(level: str, call: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("text")
    before = victim.stat()
    result = sandbox.run(f"import os; path = {str(victim)!r}; {call}")
    after = victim.stat()
    assert result.outcome == "failed"
    assert (before.st_mode, before.st_mtime, before.st_size) == (after.st_mode, after.st_mtime, after.st_size)


def test_fork_bomb_starts_no_process(level: str) -> None:
    result = sandbox.run("import os\nwhile True: os.fork()", QUICK)
    assert "PermissionError" in result.stderr
    assert result.outcome == "failed"


def test_child_that_would_outlive_the_timeout_is_never_born(level: str) -> None:
    program = "import os; print(os.posix_spawn('/bin/sleep', ['sleep', '60'], {}))"
    result = sandbox.run(program, QUICK)
    assert (result.outcome, result.stdout) == ("failed", "")


@pytest.mark.parametrize("call", ["os.execv('/bin/sh', ['sh'])", "os.system('id') == 0 or 1/0"])
def test_exec_is_refused(level: str, call: str) -> None:
    assert sandbox.run(f"import os; {call}").outcome == "failed"


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"])
def test_socket_is_refused(level: str, family: str) -> None:
    result = sandbox.run(f"import socket; socket.socket(socket.{family}, socket.SOCK_DGRAM)")
    assert "PermissionError" in result.stderr


def test_listening_server_of_the_host_gets_no_connection(level: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sandbox.run(f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}')", QUICK)
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


def test_output_of_100_megabytes_is_cut_and_ends_the_program(level: str) -> None:
    result = sandbox.run("print('x' * 100_000_000)")
    assert result.outcome == "output_limit"
    assert len(result.stdout) == Limits().output_bytes


def test_memory_beyond_the_limit_is_a_memory_error(level: str) -> None:
    assert "MemoryError" in sandbox.run("x = bytearray(4 << 30)").stderr


def test_huge_file_is_refused(level: str) -> None:
    result = sandbox.run("f = open('big', 'wb')\nwhile True: f.write(b'x' * 1_000_000)")
    assert "OSError" in result.stderr


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/etc/shadow", "~/.bashrc", "/proc/1/environ", "/proc/self/mem"]
)
def test_reading_secrets_of_the_host_is_refused(level: str, path: str) -> None:
    result = sandbox.run(f"print(open({os.path.expanduser(path)!r}, 'rb').read())")
    assert (result.outcome, result.stdout) == ("failed", "")


def test_environment_holds_nothing_of_ours(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELETE_TOKEN", "secret-token")
    result = sandbox.run("import os; print(dict(os.environ))")
    assert "secret-token" not in result.stdout
    assert "MELETE" not in result.stdout


def test_signals_to_other_processes_are_refused(level: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        program = (
            "import os, signal\n"
            f"for pid in [{bystander.pid}, os.getppid(), -1]:\n"
            "    try: os.kill(pid, signal.SIGKILL)\n"
            "    except (PermissionError, ProcessLookupError): print('refused')\n"
        )
        assert sandbox.run(program).stdout == "refused\n" * 3
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"])
def test_program_that_does_not_end_is_killed_at_the_timeout(level: str, program: str) -> None:
    started = time.monotonic()
    result = sandbox.run(program, Limits(timeout_s=0.2))
    assert result.outcome == "timeout"
    assert time.monotonic() - started < 5


def test_interrupt_while_a_program_runs_leaves_nothing_behind(level: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    others = set(psutil.Process().children(recursive=True))  # servers that other tests share
    before = signal.signal(signal.SIGALRM, interrupt)
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            sandbox.run("import time; time.sleep(60)", Limits(timeout_s=60))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 10
    left = set(psutil.Process().children(recursive=True)) - others
    assert not [child for child in left if child.status() != "zombie"]


def test_escape_calls_are_refused(level: str) -> None:
    program = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "calls = [libc.unshare(0x10000000), libc.mount(b'a', b'/tmp', b'tmpfs', 0, None), libc.ptrace(16, 1, 0, 0),\n"
        "         libc.prctl(1, 0, 0, 0, 0), libc.setsid(), libc.syscall(425, 1, 0), libc.syscall(321, 0, 0, 0)]\n"
        "print(calls)"
    )
    assert sandbox.run(program).stdout == f"{[-1] * 7}\n"


def test_work_folder_is_empty_at_each_start_and_gone_after(level: str) -> None:
    program = "import os; print(os.getcwd(), os.listdir()); open('left', 'w').write('x')"
    folders = []
    for _ in range(2):
        folder, _, listing = sandbox.run(program).stdout.partition(" ")
        assert listing == "[]\n"
        folders.append(folder)
    assert not any(os.path.exists(f"{folder}/left") for folder in folders)


def test_many_programs_at_once_each_get_their_own_output(level: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: sandbox.run(f"print({i})").stdout, range(16)))
    assert results == [f"{i}\n" for i in range(16)]


def test_packages_when_allowed_can_be_imported_but_not_changed(level: str) -> None:
    program = "import numpy; print(numpy.arange(3).sum()); open(numpy.__file__, 'a')"
    result = sandbox.run(program, packages=True)
    assert result.stdout == "3\n"
    assert "OSError" in result.stderr or "PermissionError" in result.stderr
    assert "ModuleNotFoundError" in sandbox.run("import numpy").stderr


def test_what_is_not_covered_can_be_seen_from_inside(level: str) -> None:
    program = (
        "import os, time\n"
        "print(len(open(os.__file__).read()) > 0, len(os.listdir('/usr/lib')) > 0, time.time() > 0, os.uname().release)"
    )
    assert sandbox.run(program).stdout == f"True True True {os.uname().release}\n"


def test_existence_of_files_is_hidden_by_namespaces_and_not_by_landlock(level: str) -> None:
    shown = sandbox.run("import os; print(os.path.exists('/etc/passwd'))").stdout
    assert shown == ("True\n" if level == "landlock" else "False\n")


def test_kernel_without_namespaces_falls_back_to_landlock() -> None:
    program = (
        "from melete.evals import sandbox\n"
        "from melete.evals.jail import kernel, seccomp\n"
        "seccomp.DENIED.clear(); seccomp.DENIED.update(unshare=(272, 97)); seccomp._unless = lambda *a: []\n"
        "kernel.forbid_new_privileges(); seccomp.install(0, False)\n"
        "print(sandbox.run('print(1)').protections, sandbox._unavailable)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(SOURCE)},
        check=True,
    )
    assert "'landlock'" in done.stdout
    assert "unshare: Operation not permitted" in done.stdout


def test_machine_that_offers_nothing_is_an_error_unless_weak_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "_unavailable", {"namespaces": "refused", "landlock": "refused"})
    with pytest.raises(SandboxError, match="could not be set up") as caught:
        sandbox.run("print(1)")
    assert "allow_weak" in str(caught.value)
    weak = sandbox.run("print(1)", allow_weak=True)
    assert weak.stdout == "1\n"
    assert not {"mount", "landlock"} & set(weak.protections)


def test_ordinary_user_gets_a_user_namespace() -> None:
    if os.geteuid() != 0:
        assert "user" in sandbox.run("").protections
        return
    python = Path("/usr/bin/python3.11")
    if not python.exists():
        pytest.skip("no Python that another user can start")
    program = (
        "import json; from melete.evals import sandbox; "
        'r = sandbox.run(\'import os; print(os.listdir("/"), os.path.exists("/etc/passwd"))\'); '
        "print(json.dumps([r.stdout, r.protections]))"
    )
    done = subprocess.run(
        [str(python), "-B", "-c", program],
        user=65534, group=65534, extra_groups=[], cwd="/", capture_output=True, text=True,
        env={"PYTHONPATH": str(SOURCE)}, check=False,
    )  # fmt: skip
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip("another user cannot read this checkout")
    stdout, protections = json.loads(done.stdout)
    assert {"user", "mount", "pid", "net", "seccomp"} < set(protections)
    assert stdout.endswith("False\n")


def test_filter_tables_give_each_call_a_number_below_the_newest() -> None:
    numbers = [
        number
        for table in (seccomp.DENIED, seccomp.CHANGES, seccomp.MISSING)
        for pair in table.values()
        for number in pair
    ]
    assert all(-1 <= number <= seccomp.NEWEST for number in numbers)
    for column in (0, 1):
        used = [
            pair[column]
            for table in (seccomp.DENIED, seccomp.CHANGES, seccomp.MISSING)
            for pair in table.values()
        ]
        used = [number for number in used if number >= 0]
        assert len(used) == len(set(used))
