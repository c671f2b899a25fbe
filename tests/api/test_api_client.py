"""The Python client against a real server: records, pages that follow each other, refusals, downloads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from melete.api.app import PREFIX, create_app
from melete.api.client import Client
from melete.errors import ApiError, ServerError
from melete.records import RunState
from melete.serve.server import Server
from melete.settings import Settings
from runs_at_hand import STEPS, fill_runs


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with two runs in it, behind a token."""
    home = tmp_path_factory.mktemp("client")
    made = Settings.of(home, "s3cret")
    fill_runs(made)
    return made


@pytest.fixture(scope="module")
def url(lab: Settings) -> Iterator[str]:
    """Where a server of that home listens."""
    with Server({}, lab, mounts={PREFIX: create_app(lab)}) as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """Asks it."""
    with Client(url, "s3cret") as made:
        yield made


def test_client_tells_of_runs_and_their_parts(client: Client) -> None:
    second, first = client.runs(process="trial.count")
    assert (first.name, first.state, second.name) == ("first", RunState.SUCCEEDED, "second")
    assert client.run(first.id).config == {**(client.run(second.id).config or {}), "steps": STEPS,
                                           "save_every": 20, "words": ["Ready", "to count"], "base": ""}  # fmt: skip
    (loss,) = client.curves(first.id, ["loss"], first=2, last=5).figures
    assert loss.steps == [2, 3, 4, 5]
    assert [line.text.split()[-1] for line in client.log(first.id).data] == ["Ready", "count"]
    assert [sample.name for sample in client.samples(first.id)] == ["text"]
    assert [one.step for one in client.checkpoints(first.id)] == [STEPS, 20]
    assert {node.kind for node in client.lineage(first.id).nodes} == {
        "dataset",
        "run",
        "checkpoint",
        "deployment",
    }
    assert [one.name for one in client.deployments()] == ["counter"]
    assert client.status().latest[0].id == second.id


def test_client_follows_pages_to_the_end(client: Client) -> None:
    assert [row["name"] for row in client.each("/processes", limit=2)] == [
        one.name for one in client.processes()
    ]
    assert "stdlib" in {one.name for one in client.datasets(at_hand=True)}


def test_client_reads_processes_data_and_scenarios(client: Client) -> None:
    assert client.process("trial.count").defaults["rate"] == 0.5
    assert client.dataset("stdlib").splits == ["train", "val"]
    assert next(client.rows("stdlib")).text
    name = next(client.scenarios()).name
    assert client.scenario(name).name == name


def test_client_downloads_a_file_whole(client: Client, lab: Settings, tmp_path: Path) -> None:
    run = next(client.runs(name="first")).id
    got = client.download(run, "checkpoints/step_00000020/step.txt", tmp_path / "step.txt")
    assert got.read_text() == "20"
    with pytest.raises(ApiError, match="may be seen"):
        client.download(run, "../../melete.db", tmp_path / "db")
    assert [path.name for path in tmp_path.iterdir()] == ["step.txt"]


def test_refusal_is_an_error_with_the_words_of_the_server(client: Client) -> None:
    with pytest.raises(ApiError, match="There is no run") as refused:
        client.run("20200101-000000-none-0000")
    assert (refused.value.status, refused.value.code) == (404, "not_found")


def test_wrong_token_and_a_server_that_is_away_are_one_message(url: str) -> None:
    with Client(url, "wrong") as client, pytest.raises(ApiError, match="token is wrong"):
        client.status()
    with (
        Client("http://127.0.0.1:9", timeout_s=2) as client,
        pytest.raises(ServerError, match="does not answer"),
    ):
        client.status()


def test_name_with_a_slash_stays_one_part_of_the_path(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        client.run("../status")
    assert refused.value.status == 404


def test_client_loads_no_web_framework() -> None:
    code = (
        "import sys; from melete.api.client import Client; Client().close();"
        "assert not {'fastapi', 'starlette', 'sqlalchemy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_server_of_a_wrong_kind_is_one_message(lab: Settings) -> None:
    with Server({}, replace(lab, token=None)) as server, Client(server.url) as client:
        with pytest.raises(ApiError) as refused:
            client.status()
        assert refused.value.status == 404


def test_client_submits_checks_and_steers_jobs(client: Client) -> None:
    text = "name: mine\nprocesses:\n  - {process: trial.count, name: one, config: {steps: 3}}\n"
    checked = client.check(text.replace("steps", "stps"))
    assert [(one.line, one.key) for one in checked.problems] == [(3, "stps")]
    job = client.submit(text, priority=2)
    assert (job.state, job.priority, job.steps[0].process) == ("queued", 2, "trial.count")
    assert [one.id for one in client.jobs(name="mine")] == [job.id]
    assert client.pause(job.id).state == "paused"
    assert client.resume(job.id).state == "queued"
    assert client.stop(job.id).actions == ["resume", "retry"]
    assert client.retry(job.id, {"one": {"steps": 4}}).steps[0].config == {"steps": 4}
    assert client.stop(job.id, kill=True).state == "stopped"
    with pytest.raises(ApiError, match="nothing to stop") as refused:
        client.stop(job.id)
    assert (refused.value.status, refused.value.code) == (409, "conflict")
    assert client.job_log(job.id, step="one").data == []
    assert list(client.workers()) == []
    assert "first-steps" in {example.name for example in client.examples()}


def test_client_writes_a_note_only_over_the_one_that_was_read(client: Client) -> None:
    run = next(client.runs(name="first")).id
    read = client.note(run)
    assert client.note(run, "mine", over=read).text == "mine"
    with pytest.raises(ApiError) as refused:
        client.note(run, "theirs", over=read)
    assert refused.value.status == 412
    assert client.note(run).text == "mine"
    with pytest.raises(ApiError, match="nothing to stop"):
        client.stop_run(run)


def test_client_tells_of_models_and_deploys_them(client: Client) -> None:
    (model,) = client.models()
    assert client.model("first").lineage.run == model.id
    made = client.deploy("echo", scenario="customer_support", name="desk")
    again = client.deploy("echo", scenario="customer_support", name="desk")
    assert (made.version, again.previous) == ("1.0", "1.0")
    assert client.roll_back("desk").version == "1.0"
