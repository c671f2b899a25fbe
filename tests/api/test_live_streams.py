"""Logs as server-sent events on a real server, read with curl, with the client, and by nobody; tokens that end."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from live_at_hand import Watcher, add_lines, empty_run, served
from melete.access import Role
from melete.api.alone import gated
from melete.api.client import Client
from melete.api.live.hub import SIGN_IN
from melete.errors import ApiError
from melete.jobs.child import log_file
from melete.jobs.queue import opened
from melete.jobs.states import Wanted
from melete.records import RunState
from melete.runs import folder
from melete.settings import Settings
from melete.store import database, tokens

JOB = "name: night\nprocesses:\n  - {process: trial.count, name: one, config: {steps: 3}}\n"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose runs the tests make."""
    return Settings.of(tmp_path_factory.mktemp("streams"))


@pytest.fixture(scope="module")
def url(lab: Settings) -> Iterator[str]:
    """A server over it, behind its gate."""
    with served(gated(lab), lab) as found:
        yield found


@pytest.fixture
def run(lab: Settings) -> Path:
    """A run of its own for each test."""
    path = empty_run(lab)
    add_lines(path, 0, 3)
    return path


def ended(run: Path) -> None:
    """Ends a run."""
    folder.set_state(run, folder.read(run), RunState.SUCCEEDED)


def events(text: str) -> list[tuple[str, Any]]:
    """Names and data of server-sent events."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines())
        found.append((fields.get("event", "message"), json.loads(fields["data"])))
    return found


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_shows_a_log_as_it_grows_until_the_run_ends(url: str, run: Path) -> None:
    command = ["curl", "-sN", f"{url}/api/v1/runs/{run.name}/log/stream?limit=2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        seen = ""
        while "line 2" not in seen:
            seen += curl.stdout.readline()
        add_lines(run, 3)
        while "line 3" not in seen:
            seen += curl.stdout.readline()
        ended(run)
        seen += curl.stdout.read()
    found = events(seen)
    assert [data["text"] for name, data in found if name == "message"] == ["line 1", "line 2", "line 3"]
    assert found[-1] == ("end", {"state": "succeeded"})


@pytest.mark.slow
def test_stream_goes_on_after_the_last_event_that_was_seen(url: str, run: Path) -> None:
    ended(run)
    first = httpx.get(f"{url}/api/v1/runs/{run.name}/log/stream", params={"limit": 2})
    place = [line for line in first.text.splitlines() if line.startswith("id: ")][-1].removeprefix("id: ")
    add_lines(run, 3)
    again = httpx.get(f"{url}/api/v1/runs/{run.name}/log/stream", headers={"Last-Event-ID": place})
    assert [data.get("text") for _, data in events(again.text)] == ["line 3", None]


@pytest.mark.parametrize(
    ("path", "status"), [("runs/none", 404), ("jobs/none", 404), ("runs/..", 404), ("runs/{run}", 400)]
)
def test_stream_that_cannot_begin_is_refused_as_the_log_is(
    url: str, run: Path, path: str, status: int
) -> None:
    answer = httpx.get(
        f"{url}/api/v1/{path.format(run=run.name)}/log/stream?limit={2 if status == 404 else 'x'}"
    )
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_run_that_is_deleted_under_a_stream_ends_it_with_the_reason(url: str, run: Path) -> None:
    with Client(url) as client:
        lines = client.follow(run.name)
        assert [next(lines).text for _ in range(3)][-1] == "line 2"
        shutil.rmtree(run)
        with pytest.raises(ApiError, match="no run named"):
            next(lines)


def test_log_of_a_job_is_followed_until_it_ends(url: str, lab: Settings, tmp_path: Path) -> None:
    (tmp_path / "night.yaml").write_text(JOB)
    with opened(lab) as queue:
        job = queue.submit(tmp_path / "night.yaml")
        log = log_file(lab, job.id, 0, "one")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("one\ntwo\n")
        with Client(url) as client:
            lines = client.follow_job(job.id, "one")
            assert [next(lines).text for _ in range(2)] == ["one", "two"]
            with log.open("a") as file:
                file.write("three\n")
            queue.ask(job.id, Wanted.STOP)
            assert [line.text for line in lines] == ["three"]


@pytest.mark.slow
def test_stream_that_nobody_reads_holds_little(url: str, lab: Settings) -> None:
    run = empty_run(lab)
    (run / "log.txt").write_text(("x" * 999 + "\n") * 20_000)
    ended(run)
    host, _, port = url.removeprefix("http://").partition(":")
    with Client(url) as client:  # what is made once is made now
        assert sum(1 for _ in client.follow(run.name, after=0)) == 20_000
    before_mb = resident_mb()
    asleep = [socket.create_connection((host, int(port))) for _ in range(5)]
    path = f"/api/v1/runs/{run.name}/log/stream?after=0"
    for one in asleep:
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert one.recv(15) == b"HTTP/1.1 200 OK"
    with Client(url) as client:  # somebody who reads is served meanwhile, to the end
        assert sum(1 for _ in client.follow(run.name, after=0)) == 20_000
    assert resident_mb() - before_mb < 60  # of 100 MB that were asked for
    for one in asleep:
        one.close()


@pytest.mark.slow
def test_connection_ends_within_seconds_after_its_token_was_revoked(tmp_path: Path) -> None:
    home = Settings.of(tmp_path)
    with database.connect(home.database) as connection:
        token, secret = tokens.make(connection, "phone", Role.READ, by="test", now_s=time.time())
    key = {"Authorization": f"Bearer {secret}"}
    with served(gated(home), home) as url, Watcher(url, additional_headers=key) as watcher:
        watcher.subscribe("/api/v1/status", "/api/v1/tokens")
        assert "needs the role admin" in watcher.next("/api/v1/tokens")["error"]["message"]
        with database.connect(home.database) as connection:
            tokens.revoke(connection, token, time.time())
        with pytest.raises(ConnectionClosed) as closed:
            watcher.until("/api/v1/status", lambda _: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == SIGN_IN


def resident_mb() -> float:
    """Of this process, in which the server is."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4_096 / 2**20


def test_requests_beside_a_stream_are_answered(url: str, run: Path) -> None:
    with Client(url) as client:
        following = threading.Thread(target=lambda: list(client.follow(run.name)))
        following.start()
        with Client(url) as other:
            assert other.status().now_s > 0
        ended(run)
        following.join(20)
        assert not following.is_alive()
