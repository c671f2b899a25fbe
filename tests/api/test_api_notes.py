"""What people write about a run, and stopping a run that no queue looks after: nothing of others is written over."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from melete.api.app import create_app
from melete.jobs.execute import Options, execute
from melete.records import RunRecord, RunState
from melete.runs import folder, headway
from melete.settings import Settings
from melete.store import index
from runs_at_hand import fill_queue
from trial_runs import started_run


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with one run."""
    home = tmp_path_factory.mktemp("notes")
    made = Settings.of(home)
    execute("trial.count", {"steps": 2}, Options(made, name="noted"))
    return made


@pytest.fixture(scope="module")
def client(lab: Settings) -> Iterator[TestClient]:
    """Asks the API over it."""
    with TestClient(create_app(lab), raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def note(client: TestClient, lab: Settings) -> Iterator[str]:
    """Path of the run's note, which is empty before and after."""
    run = folder.ids(lab.runs)[0]
    yield f"/runs/{run}/note"
    (lab.runs / run / "note.md").unlink(missing_ok=True)


def test_note_is_written_whole_shown_with_its_run_and_removed_when_empty(
    client: TestClient, lab: Settings, note: str
) -> None:
    assert client.get(note).json()["text"] == ""
    text = "**Diverged** at 300.\n<script>alert(1)</script> ☕"
    written = client.put(note, json={"text": text.replace("\n", "\r\n")})
    assert (written.status_code, written.json()["text"]) == (200, text)
    assert client.get(note.removesuffix("/note")).json()["note"] == text
    assert client.get(note).headers["etag"] == f'"{written.json()["revision"]}"'
    assert client.get(note, headers={"If-None-Match": written.headers["etag"]}).status_code == 304
    assert client.put(note, json={"text": ""}).json()["text"] == ""
    assert not (lab.runs / folder.ids(lab.runs)[0] / "note.md").exists()


def test_note_that_somebody_else_has_changed_is_not_written_over(client: TestClient, note: str) -> None:
    read = client.get(note).headers["etag"]
    client.put(note, json={"text": "theirs"})
    refused = client.put(note, json={"text": "mine"}, headers={"If-Match": read})
    assert (refused.status_code, refused.json()["error"]["code"]) == (412, "changed_meanwhile")
    assert client.get(note).json()["text"] == "theirs"
    again = client.get(note).headers["etag"]
    assert client.put(note, json={"text": "both"}, headers={"If-Match": again}).status_code == 200


def test_of_many_who_write_over_the_same_note_just_one_succeeds(client: TestClient, note: str) -> None:
    read = client.get(note).headers["etag"]

    def write(number: int) -> int:
        body = {"text": f"number {number}"}
        return client.put(note, json=body, headers={"If-Match": read}).status_code

    with ThreadPoolExecutor(8) as pool:
        found = sorted(pool.map(write, range(16)))
    assert found == [200, *[412] * 15]


@pytest.mark.parametrize(("text", "status"), [("x" * 100_001, 400), ("x" * 10_000_000, 413)])
def test_note_that_is_too_long_is_refused_and_the_one_before_stays(
    client: TestClient, note: str, text: str, status: int
) -> None:
    client.put(note, json={"text": "kept"})
    assert client.put(note, json={"text": text}).status_code == status
    assert client.get(note).json()["text"] == "kept"


def test_note_of_no_run_is_404(client: TestClient) -> None:
    assert client.put("/runs/none/note", json={"text": "x"}).status_code == 404


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from starlette.testclient import TestClient
import melete_trial
from melete.api.app import create_app
from melete.settings import Settings
home = Path(sys.argv[1])
lab = Settings.of(home)
with TestClient(create_app(lab), raise_server_exceptions=False) as client:
    client.get("/jobs")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))  # a write beyond it fails as on a full disk
    text = "name: full\\nprocesses:\\n- {process: trial.count}\\n" + "# so much\\n" * 1_000
    for answer in (
        client.put(f"/runs/{sys.argv[2]}/note", json={"text": "new " * 2_000}),
        client.post("/jobs", json={"text": text}),
    ):
        print(answer.status_code, answer.json()["error"]["message"].replace("\\n", " "))
"""


@pytest.mark.slow
def test_full_disk_is_one_clear_message_and_leaves_nothing_half_written(
    client: TestClient, lab: Settings, note: str
) -> None:
    client.put(note, json={"text": "kept"})
    client.post("/jobs", json={"text": "name: small\nprocesses:\n- {process: trial.count}\n"})
    run = folder.ids(lab.runs)[0]
    before = {path for path in lab.home.rglob("*") if not path.name.startswith("melete.db")}
    tests = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {tests!r})\n{FULL_DISK}"
    made = subprocess.run(
        [sys.executable, "-c", code, str(lab.home), run], capture_output=True, text=True, check=True
    )
    for_note, for_job = made.stdout.splitlines()
    assert for_note.startswith("507 The disk is full: note.md was not written")
    assert for_job.startswith("507 The disk is full: job was not written")
    assert "Free some space" in for_job
    assert client.get(note).json()["text"] == "kept"
    after = {path for path in lab.home.rglob("*") if not path.name.startswith("melete.db")}
    assert after == before


@pytest.mark.slow
def test_run_in_a_terminal_stops_with_its_checkpoint(home: Settings) -> None:
    with (
        TestClient(create_app(home)) as client,
        started_run(home, "--hold-s", "0.05", "--steps", "10000", "--save-every", "5000") as (child, path),
    ):
        index.record(home, path)
        answer = client.post(f"/runs/{path.name}/stop")
        assert (answer.status_code, answer.json()) == (202, {"run": path.name, "state": "stopping"})
        child.wait(60)
        run = client.get(f"/runs/{path.name}").json()
        assert (run["state"], run["stopping"]) == ("stopped", False)
        again = client.post(f"/runs/{path.name}/stop")
        assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
        assert "stopped: there is nothing to stop" in again.text


def recorded(lab: Settings, **values: object) -> str:
    """A run whose record says that it runs."""
    path, record = folder.create(lab, "trial.count")
    folder.write(path, RunRecord(**{**vars(record), "state": RunState.RUNNING, **values}))
    folder_beat = path / folder.HEARTBEAT
    folder_beat.touch()
    return path.name


def test_run_that_was_asked_to_end_says_so_until_it_has_ended(client: TestClient, lab: Settings) -> None:
    run = recorded(lab, host="elsewhere")
    assert client.get(f"/runs/{run}").json()["stopping"] is False
    headway.ending(lab.runs / run, True)
    assert client.get(f"/runs/{run}").json()["stopping"] is True


def test_run_of_another_host_or_of_a_process_that_is_another_one_gets_no_signal(
    client: TestClient, lab: Settings
) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        elsewhere = recorded(lab, host="elsewhere", pid=sleeper.pid, pid_started_s=1.0)
        refused = client.post(f"/runs/{elsewhere}/stop")
        assert (refused.status_code, "runs on elsewhere" in refused.text) == (409, True)
        reused = recorded(lab, host=socket.gethostname(), pid=sleeper.pid, pid_started_s=1.0)
        assert client.post(f"/runs/{reused}/stop").status_code == 409
        assert sleeper.poll() is None
    finally:
        sleeper.send_signal(signal.SIGKILL)
        sleeper.wait()


def test_run_of_the_queue_is_stopped_with_its_job(client: TestClient, lab: Settings) -> None:
    job, _ = fill_queue(lab)
    run = recorded(lab, host="elsewhere", job=job)
    refused = client.post(f"/runs/{run}/stop")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "of_a_job")
    assert f"/api/v1/jobs/{job}/stop" in refused.json()["error"]["message"]
