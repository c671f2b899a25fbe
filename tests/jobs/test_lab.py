"""The lab in the background: a real server and workers, restarted when they die, one lab for each home."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
from queue_at_hand import job_file, queue_of, until

from melete import supervision
from melete.errors import ServerError
from melete.jobs import background, lab
from melete.jobs.lab import Plan
from melete.runs import folder as folders
from melete.settings import Settings
from trial_runs import TRIAL

Melete = Callable[..., subprocess.CompletedProcess[str]]
PLAN = Plan("127.0.0.1", 0, gpus="none", grace_s=10.0)


@pytest.fixture
def up(home: Settings) -> Iterator[lab.State]:
    """A lab that is up."""
    state, before = background.up(home, PLAN)
    assert not before
    yield state
    background.down(home)


def test_port_that_is_taken_is_said_before_anything_starts(home: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"Port {port} on 127.0.0.1 is already in use"):
            background.up(home, Plan("127.0.0.1", port))
    assert lab.read(home) is None


def test_address_that_others_can_reach_needs_a_token(home: Settings) -> None:
    with pytest.raises(ServerError, match="MELETE_TOKEN"):
        background.up(home, Plan("0.0.0.0", 0))


@pytest.mark.slow
def test_up_for_other_machines_makes_the_first_token_and_shows_it_once(home: Settings) -> None:
    reader, terminal = pty.openpty()
    command = [sys.executable, TRIAL, "up", "--host", "0.0.0.0", "--port", "0", "--gpus", "none"]
    said = b""
    try:
        with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as typed:
            os.close(terminal)
            with suppress(OSError):  # the end of what a terminal shows
                while more := os.read(reader, 4_096):
                    said += more
        assert typed.returncode == 0
        (secret,) = re.findall(rb"mlt_[\w-]{32}", said)
        state = lab.alive(home)
        assert state is not None
        asked = urllib.request.Request(f"{state.plan.url}/api/v1/runs")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(asked)
        asked.add_header("Authorization", f"Bearer {secret.decode()}")
        assert urllib.request.urlopen(asked).status == 200
        kept = [path for path in home.home.rglob("*") if path.is_file() and secret in path.read_bytes()]
        assert kept == []
    finally:
        os.close(reader)
        background.down(home)


def test_down_and_status_of_a_lab_that_is_not_up(
    home: Settings, call: Callable[..., tuple[int, str, str]]
) -> None:
    assert call("down") == (0, "Melete was not up.\n", "")
    code, out, _ = call("status")
    assert code == 1
    assert "Start the server and a worker with: melete up" in out
    told = json.loads(call("status", "--json")[1])
    assert (told["lab"], told["healthy"], told["workers"]) == (None, False, [])


def test_systemd_unit_runs_the_same_lab(home: Settings, call: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = call("up", "--systemd", "--port", "9000", "--workers", "2", "--model", "latest")
    assert code == 0
    start = next(line for line in out.splitlines() if line.startswith("ExecStart="))
    assert "-m melete up --foreground --host 127.0.0.1 --port 9000 --model latest --workers 2" in start
    assert f'Environment="MELETE_HOME={home.home.resolve()}"' in out
    assert "KillMode=mixed" in out


def test_plan_of_several_workers_names_each() -> None:
    parts = Plan("::1", 8675, workers=2, models=("a", "b=c")).parts()
    assert list(parts) == ["server", "worker-1", "worker-2"]
    assert parts["server"][-4:] == ["--model", "a", "--model", "b=c"]
    assert Plan("::", 8675).url == "http://[::1]:8675"


@pytest.mark.slow
def test_lab_carries_out_jobs_and_survives_the_death_of_its_parts(
    home: Settings, tmp_path: Path, up: lab.State, melete: Melete
) -> None:
    with queue_of(home) as queue:
        first = queue.submit(job_file(tmp_path, {"config": {"steps": 2}}))
        until(lambda: queue.get(first.id).state == "succeeded")
        for name, part in up.parts.items():
            assert part.pid is not None
            os.kill(part.pid, signal.SIGKILL)
            until(lambda name=name: (lab.read(home) or up).parts[name].restarts == 1)
        until(lambda: supervision.answers(f"{up.plan.url}/health", timeout_s=2))
        second = queue.submit(job_file(tmp_path, {"config": {"steps": 2}}))
        until(lambda: queue.get(second.id).state == "succeeded")
    again = melete("up", "--port", "0", "--gpus", "none", "--grace-s", "10")
    assert f"was up already, at {up.plan.url}" in again.stdout
    other = melete("up", "--port", "1")
    assert other.returncode == 8
    assert f"Melete is up in this home already, at {up.plan.url}." in other.stderr
    assert "melete down" in other.stderr
    foreground = melete("up", "--foreground", "--port", "0")
    assert foreground.returncode == 8
    assert "was killed by SIGKILL" in (home.home / "lab" / "logs" / "lab.log").read_text()


@pytest.mark.slow
def test_lab_has_a_session_of_its_own_and_its_parts_end_with_it(home: Settings, up: lab.State) -> None:
    assert os.getsid(up.pid) == up.pid != os.getsid(0)
    now = lab.read(home)
    assert now is not None
    pids = [part.pid or 0 for part in now.parts.values()]
    assert all(folders.process_start_s(pid) for pid in pids)
    os.kill(up.pid, signal.SIGKILL)
    until(lambda: not any(folders.process_start_s(pid) for pid in pids))
    assert lab.alive(home) is None
    state, before = background.up(home, PLAN)
    assert not before
    assert state.pid != up.pid


@pytest.mark.slow
def test_down_saves_what_runs_and_up_continues_it(home: Settings, tmp_path: Path) -> None:
    config = {"steps": 150, "hold_s": 0.04, "save_every": 1000}
    background.up(home, PLAN)
    with queue_of(home) as queue:
        job = queue.submit(job_file(tmp_path, {"config": config}))
        until(lambda: list(home.runs.glob("*/metrics.jsonl")))
        assert background.down(home)
        assert queue.get(job.id).steps[0].state == "queued"
        (run,) = home.runs.iterdir()
        assert list((run / "checkpoints").iterdir())
        background.up(home, PLAN)
        try:
            until(lambda: queue.get(job.id).state == "succeeded")
        finally:
            background.down(home)
    assert [folder.name for folder in home.runs.iterdir()] == [run.name]


@pytest.mark.slow
def test_server_that_cannot_start_fails_with_its_last_words(home: Settings) -> None:
    began_s = time.monotonic()
    with pytest.raises(ServerError, match=r"did not come up because the server ended with exit code \d"):
        background.up(home, Plan("127.0.0.1", 0, models=("no-such-model",), gpus="none"))
    assert time.monotonic() - began_s < 60
    assert any("no-such-model" in line for line in lab.last_words(home))
    assert lab.alive(home) is None


def test_log_of_a_part_that_says_much_is_rotated_and_bounded(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "LOG_BYTES", 1_000)
    supervisor = lab.Supervisor(home, PLAN)
    for number in range(400):
        supervisor._note("server", f"line {number}")
    files = list((lab.folder(home) / "logs").glob("server.log*"))
    assert len(files) == lab.KEPT_LOGS + 1
    assert all(file.stat().st_size <= 1_000 for file in files)
    assert lab.last_words(home)[-1].endswith("line 399")


@pytest.mark.slow
def test_server_that_no_longer_answers_is_ended_and_started_again(home: Settings) -> None:
    quick = "from melete.jobs import lab; lab.CHECK_S, lab.DEAF_CHECKS = 0.5, 2; raise SystemExit(lab.main())"
    with socket.create_server(("127.0.0.1", 0)) as free:
        plan = Plan("127.0.0.1", free.getsockname()[1], workers=0)
    with subprocess.Popen([sys.executable, "-c", quick], stdin=subprocess.PIPE) as supervisor:
        assert supervisor.stdin is not None
        supervisor.stdin.write(json.dumps({**asdict(plan), "beside": []}).encode())
        supervisor.stdin.close()
        try:
            state = until(lambda: (now := lab.alive(home)) and now.state == "up" and now)
            deaf = state.parts["server"].pid
            os.kill(deaf, signal.SIGSTOP)
            until(lambda: (now := lab.alive(home)) and now.parts["server"].pid not in (deaf, None))
            until(lambda: supervision.answers(f"{plan.url}/health", timeout_s=1.0))
            assert any("does not answer; it is ended" in line for line in lab.last_words(home, "lab"))
        finally:
            supervisor.terminate()
