"""A harness as a child process: what it is given, how it is ended, and that its session ends with it in every case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import own_bench
import psutil
import pytest

from melete.bench import attempt, exec, session
from melete.bench.session import Opened, Plan
from melete.errors import ConfigError
from melete.gateway import sessions
from melete.records import SessionRecord, SessionState
from melete.settings import Settings
from melete.store.database import connect

PYTHON = sys.executable


@pytest.fixture
def settings(home: Settings, tmp_path: Path) -> Settings:
    return own_bench.settings_with(home, tmp_path)


def row(settings: Settings, opened: Opened) -> SessionRecord:
    with connect(settings.database) as connection:
        return sessions.get(connection, opened.session.id)


def run(tmp_path: Path, *command: str, **options: object) -> exec.Ended:
    return exec.run(command, {"PATH": os.environ["PATH"]}, tmp_path, **options)  # type: ignore[arg-type]


def test_play_of_the_profile_s_command_is_judged_by_the_checker(settings: Settings) -> None:
    record, ended = attempt.play(settings, own_bench.start(settings), quiet=True)

    assert (record.state, record.solved, record.score) == (SessionState.FINALISED, True, 1.0)
    assert record.outcome_source == "checker"
    assert (ended.exit_code, ended.reason) == (0, "exited")
    assert record.metadata["exit_code"] == 0


def test_play_hands_a_prompt_over_as_one_argument_whatever_it_holds(home: Settings, tmp_path: Path) -> None:
    prompt = "$(touch owned); `id` && echo '\"{key}' | sh"
    card = (
        f"prompt: {json.dumps(prompt)}\nchecker: {{file_matches: {{files: {{owned: {{absent: true}}}}}}}}\n"
    )
    settings = own_bench.settings_with(home, tmp_path, task_cards_say=card)
    opened = own_bench.start(settings)

    record, _ = attempt.play(settings, opened, quiet=True, keep_work=True)

    assert (opened.workdir / "answer.txt").read_text() == prompt
    assert record.solved is True


def test_play_works_in_a_fresh_repository_of_the_card_s_files(settings: Settings) -> None:
    opened = own_bench.start(settings)
    script = (
        "git log --format=%s; git status --porcelain; cat README.md src/a.py; git rev-parse --show-toplevel"
    )

    record, _ = attempt.play(
        settings, opened, ["sh", "-c", f"({script}) > answer.txt"], quiet=True, keep_work=True
    )

    assert (opened.workdir / "answer.txt").read_text().splitlines() == [
        "The task", "?? answer.txt", f"Say it.x = 1{opened.workdir}",
    ]  # fmt: skip
    assert record.solved is False


def test_play_gives_the_session_s_environment_and_no_secret_of_the_host(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "MY_SECRET",
        "LITELLM_ADMIN_KEY",
    ):
        monkeypatch.setenv(name, "of-the-host")
    monkeypatch.setenv("OPENAI_ORGANIZATION", "of-the-host")
    opened = own_bench.start(settings)

    attempt.play(settings, opened, ["sh", "-c", "env > answer.txt"], quiet=True, keep_work=True)

    seen = (opened.workdir / "answer.txt").read_text()
    assert f"OPENAI_API_KEY={opened.credential.key}" in seen
    assert f"MELETE_SESSION={opened.session.id}" in seen
    assert "of-the-host" not in seen


@pytest.mark.slow
def test_play_past_its_time_is_not_solved_and_leaves_no_process(settings: Settings) -> None:
    opened = own_bench.start(settings, timeout_s=0.5)
    script = "trap '' TERM; sleep 97.3 & echo forty-two > answer.txt; sleep 97.3"

    record, ended = attempt.play(settings, opened, ["sh", "-c", script], quiet=True)

    assert ended.reason == "timeout"
    assert (record.state, record.solved, record.outcome_note) == (
        SessionState.FINALISED, False, "not done within 0.5 s",
    )  # fmt: skip
    assert not sleeping("97.3")


def test_play_of_a_program_that_is_not_there_aborts_the_session(settings: Settings) -> None:
    opened = own_bench.start(settings)

    with pytest.raises(ConfigError, match="no program 'nope-nope'"):
        attempt.play(settings, opened, ["nope-nope"])

    assert row(settings, opened).state is SessionState.ABORTED


def test_play_of_a_card_without_checker_leaves_the_outcome_open(settings: Settings) -> None:
    record, _ = attempt.play(settings, own_bench.start(settings, task="open"), quiet=True)

    assert (record.state, record.solved, record.outcome_source) == (SessionState.FINALISED, None, "manual")


def test_play_of_a_scenario_without_a_command_says_who_can(settings: Settings) -> None:
    opened = own_bench.start(settings, task="desk/10")

    with pytest.raises(ConfigError, match="cannot play 'desk/10' by itself"):
        attempt.play(settings, opened)


def test_play_in_a_repository_at_a_commit_gets_that_commit(home: Settings, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    git = ["git", "-C", str(source), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git[:3], "init", "-q"], check=True)
    for text in ("old", "new"):
        (source / "a.txt").write_text(text)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", text], check=True)
    old = subprocess.run(
        [*git, "rev-parse", "HEAD~1"], capture_output=True, text=True, check=True
    ).stdout.strip()
    checker = "checker: {expected_text: {file: a.txt, text: old}}\n"
    card = f"prompt: x\nrepository: {{url: {source}, commit: {old}}}\n{checker}"
    settings = own_bench.settings_with(home, tmp_path, task_cards_say=card)

    record, _ = attempt.play(settings, own_bench.start(settings), ["git", "status"], quiet=True)

    assert record.solved is True
    assert (record.metadata["commit"], record.metadata["dirty"]) == (old, False)


def test_play_in_a_repository_without_that_commit_says_so(home: Settings, tmp_path: Path) -> None:
    source = tmp_path / "source"
    subprocess.run(["git", "init", "-q", str(source)], check=True)
    card = f"prompt: x\nrepository: {{url: {source}, commit: {'ab' * 20}}}\n"
    opened = own_bench.start(own_bench.settings_with(home, tmp_path, task_cards_say=card))

    with pytest.raises(ConfigError, match="has no working copy at abababababab"):
        attempt.prepare(opened)


def test_check_of_a_session_by_hand_judges_the_folder_it_worked_in(settings: Settings) -> None:
    opened = own_bench.start(settings)
    attempt.prepare(opened)
    (opened.workdir / "answer.txt").write_text("it is forty-two")

    assert attempt.check(settings, opened.session.id).solved is True


def test_run_passes_input_output_and_exit_code_through(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom melete.bench import exec\n"
        "ended = exec.run(['sh', '-c', 'read line; echo got $line; echo oops >&2; exit 5'], os.environ, Path('.'))\n"
        "sys.exit(ended.exit_code)\n"
    )

    done = subprocess.run(
        [PYTHON, "-c", program], input="hello\n", capture_output=True, text=True, cwd=tmp_path
    )

    assert (done.returncode, done.stdout, done.stderr) == (5, "got hello\n", "oops\n")


def test_run_that_catches_output_passes_it_on_too(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    ended = run(tmp_path, "sh", "-c", "echo one; echo two", catch_output=True)

    assert ended.output == "one\ntwo\n"
    assert capfdbinary.readouterr().out == b"one\ntwo\n"


def test_run_keeps_only_the_beginning_of_endless_output(tmp_path: Path) -> None:
    ended = run(tmp_path, "sh", "-c", "yes | head -c 3000000", catch_output=True, quiet=True)

    assert len(ended.output or "") == exec.LARGEST_OUTPUT


def test_run_of_a_harness_that_leaves_a_child_behind_ends_it_too(tmp_path: Path) -> None:
    ended = run(tmp_path, "sh", "-c", "sleep 98.4 & exit 0", quiet=True)

    assert ended.exit_code == 0
    assert not sleeping("98.4")


def test_run_killed_by_a_signal_says_it_as_a_shell_does(tmp_path: Path) -> None:
    assert run(tmp_path, "sh", "-c", "kill -SEGV $$", quiet=True).exit_code == 128 + signal.SIGSEGV


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_exec_interrupted_aborts_the_session_and_leaves_no_process(
    settings: Settings, tmp_path: Path, number: int
) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom melete import settings\nfrom melete.bench import attempt, session\n"
        "from melete.bench.session import Plan\n"
        "opened = session.start(settings.load(), Plan('one', 'say'), 'http://127.0.0.1:9')\n"
        "record, ended = attempt.play(settings.load(), opened, ['sh', '-c', 'echo up; sleep 96.2 & sleep 96.2'])\n"
        "print(record.state, ended.reason)\n"
    )
    environ = {**os.environ, "MELETE_BENCH": str(settings.bench)}
    child = subprocess.Popen(
        [PYTHON, "-c", program], stdout=subprocess.PIPE, text=True, env=environ, cwd=tmp_path
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"

    child.send_signal(number)

    assert child.stdout.read() == "aborted interrupted\n"
    assert child.wait() == 0
    assert not sleeping("96.2")


def test_play_at_a_terminal_lends_it_to_the_harness_and_takes_it_back(settings: Settings) -> None:
    import pty

    opened = own_bench.start(settings)
    script = "read word < /dev/tty; echo $word > answer.txt"
    leader, terminal = pty.openpty()
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom melete.bench import exec\n"
        "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        f"exec.run(['sh', '-c', {script!r}], os.environ, Path({str(opened.folder)!r}))\n"
        "sys.exit(0 if os.tcgetpgrp(0) == os.getpgrp() else 1)\n"
    )
    child = subprocess.Popen([PYTHON, "-c", program], stdin=terminal, start_new_session=True)
    os.write(leader, b"forty-two\n")

    assert child.wait(60) == 0
    assert (opened.folder / "answer.txt").read_text() == "forty-two\n"
    os.close(leader)
    os.close(terminal)


def test_run_at_a_terminal_stops_with_a_harness_that_is_stopped_and_goes_on_with_it(tmp_path: Path) -> None:
    import pty

    script = "read go < /dev/tty; kill -TSTP $$; echo on > answer.txt"
    leader, terminal = pty.openpty()
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom melete.bench import exec\n"
        "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        f"sys.exit(exec.run(['sh', '-c', {script!r}], os.environ, Path({str(tmp_path)!r})).exit_code)\n"
    )
    child = subprocess.Popen([PYTHON, "-c", program], stdin=terminal, start_new_session=True)
    os.write(leader, b"go\n")
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert not (tmp_path / "answer.txt").exists()

    os.kill(child.pid, signal.SIGCONT)

    assert child.wait(60) == 0
    assert (tmp_path / "answer.txt").read_text() == "on\n"
    os.close(leader)
    os.close(terminal)


def test_inherited_puts_the_harness_s_own_programs_first(home: Settings, tmp_path: Path) -> None:
    profile = own_bench.FILES["harness_profiles/worker.yaml"] + "installed_in: mine\n"
    settings = own_bench.settings_with(home, tmp_path, harness_profiles_worker=profile)
    place = settings.home / "envs" / "mine" / "bin"
    place.mkdir(parents=True)

    opened = own_bench.start(settings)

    assert attempt.environment(settings, opened)["PATH"].startswith(f"{place}{os.pathsep}")


def sleeping(seconds: str) -> bool:
    """Whether a `sleep` of these seconds is still there; waits a moment for one that was just killed."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        alive = [p for p in psutil.process_iter(["cmdline", "status"]) if (p.info["cmdline"] or [])[-1:] == [seconds]
                 and p.info["status"] != psutil.STATUS_ZOMBIE]  # fmt: skip
        if not alive:
            return False
        threading.Event().wait(0.05)
    return True


def test_plan_limits_win_over_the_card_s(settings: Settings) -> None:
    opened = session.start(settings, Plan("one", "say", "both", timeout_s=7), "http://127.0.0.1:9")

    assert opened.timeout_s == 7
