"""Episodes, proof and practice over the API: an index that grows with the traces, filters, steps, hostile lines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from melete.actions.trace import TraceWriter
from melete.api import traces
from melete.api.app import PREFIX, create_app
from melete.api.client import Client
from melete.serve import deployment
from melete.serve.server import Server
from melete.settings import Settings
from practice_at_hand import SCENARIO, TASKS, fill_practice

SCRIPT = "<script>alert(1)</script>"
BIG = "x" * 10_000_000


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with one run of practice."""
    return Settings.of(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def run(settings: Settings) -> str:
    """The run's id."""
    return fill_practice(settings)


@pytest.fixture(scope="module")
def client(settings: Settings, run: str) -> Iterator[TestClient]:
    """Asks the API."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as made:
        yield made


def get(client: TestClient, path: str, **asked: Any) -> Any:
    answer = client.get(path, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def own_run(settings: Settings) -> tuple[str, Path]:
    """A run of its own, with the folder of its traces, for tests that write there."""
    made = fill_practice(settings, tasks=1, name="own")
    return made, settings.runs / made / "traces"


def every(client: TestClient, path: str, **asked: Any) -> list[dict[str, Any]]:
    """All rows of a list."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = get(client, path, **asked, **({"cursor": cursor} if cursor else {}))
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_episodes_of_a_run_are_listed_with_what_came_of_them(client: TestClient, run: str) -> None:
    page = get(client, f"/runs/{run}/episodes", phase="after", limit=200)
    assert page["complete"]
    assert len(page["data"]) == 2 * TASKS
    assert all(one["solved"] and one["calls"] == one["calls_ok"] for one in page["data"])
    assert {one["split"] for one in page["data"]} == {"held_out", "unseen"}
    phases = {one["phase"]: one for one in page["phases"]}
    assert phases["after"]["episodes"] == phases["after"]["solved"] == 2 * TASKS
    assert phases["practice"]["episodes"] == 12
    result = get(client, f"/runs/{run}")["result"]
    assert phases["before"]["calls_ok"] == sum(row["tool_calls_ok"] for row in result["before"])


def test_episodes_are_paged_newest_first_without_a_gap(client: TestClient, run: str) -> None:
    found = every(client, f"/runs/{run}/episodes", limit=7)
    whole = get(client, f"/runs/{run}/episodes", limit=200)["data"]
    assert [one["id"] for one in found] == [one["id"] for one in whole]
    assert len({one["id"] for one in found}) == 4 * TASKS + 12


@pytest.mark.parametrize(
    ("asked", "holds"),
    [
        ({"failed": True}, lambda one: one["calls_ok"] < one["calls"]),
        ({"failed": False}, lambda one: one["calls_ok"] == one["calls"]),
        ({"solved": False}, lambda one: one["solved"] is False),
        (
            {"split": "unseen", "phase": "before"},
            lambda one: (one["split"], one["phase"]) == ("unseen", "before"),
        ),
        ({"phase": "practice", "step": 1}, lambda one: one["step"] == 1),
        ({"stopped": True}, lambda one: one["stopped"] > 0),
    ],
)
def test_filter_of_episodes_keeps_exactly_those_that_match(
    client: TestClient, run: str, asked: dict[str, Any], holds: Any
) -> None:
    everything = get(client, f"/runs/{run}/episodes", limit=200)["data"]
    found = get(client, f"/runs/{run}/episodes", limit=200, **asked)["data"]
    assert [one["id"] for one in found] == [one["id"] for one in everything if holds(one)]
    assert found


def test_same_task_is_found_before_and_after(client: TestClient, run: str) -> None:
    before = get(client, f"/runs/{run}/episodes", phase="before", split="held_out")["data"][3]
    (after,) = get(client, f"/runs/{run}/episodes", phase="after", task=before["task"])["data"]
    assert before["request"] == after["request"]
    assert before["id"] != after["id"]


def test_episode_tells_each_step_as_the_trace_has_it(
    client: TestClient, run: str, settings: Settings
) -> None:
    one = get(client, f"/runs/{run}/episodes", phase="before", stopped=True)["data"][0]
    found = get(client, f"/runs/{run}/episodes/{one['id']}")
    file = settings.runs / run / "traces" / f"{one['id'].partition(':')[0]}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines = [line for line in lines if line["episode"] == one["name"]]
    assert [step["proposed"] for step in found["data"]] == [line["proposed"] for line in lines]
    assert [step["verdict"] for step in found["data"]] == [line["verdict"] for line in lines]
    assert [step["result"] for step in found["data"]] == [line["result"] for line in lines]
    assert found["data"][-1]["total_reward"] == pytest.approx(one["reward"])
    assert any(step["verdict"] == "refuse" and step["reasons"] and not step["ok"] for step in found["data"])
    assert found["criteria"]


def test_steps_of_an_episode_are_paged_with_their_running_reward(client: TestClient, run: str) -> None:
    one = next(e for e in get(client, f"/runs/{run}/episodes", limit=200)["data"] if e["steps"] > 3)
    whole = get(client, f"/runs/{run}/episodes/{one['id']}")["data"]
    assert every(client, f"/runs/{run}/episodes/{one['id']}", limit=2) == whole


def test_unknown_episode_is_404_and_a_strange_name_400(client: TestClient, run: str) -> None:
    refused = client.get(f"/runs/{run}/episodes/after-held_out:999999")
    assert refused.status_code == 404
    assert "There is no episode" in refused.json()["error"]["message"]
    assert client.get(f"/runs/{run}/episodes/..%2F..%2Fetc:0").status_code in (400, 404)
    assert client.get(f"/runs/{run}/episodes/passwd").status_code == 400


def test_cursor_of_other_filters_is_refused(client: TestClient, run: str) -> None:
    cursor = get(client, f"/runs/{run}/episodes", limit=1)["next_cursor"]
    assert client.get(f"/runs/{run}/episodes", params={"cursor": cursor, "solved": True}).status_code == 400


def test_proof_tells_rows_differences_and_tools_with_intervals(client: TestClient, run: str) -> None:
    proof = get(client, f"/runs/{run}/proof")
    assert proof["scenario"] == SCENARIO
    assert {(row["phase"], row["split"]) for row in proof["rows"]} == {
        (phase, split) for phase in ("before", "after") for split in ("held_out", "unseen")
    }
    assert {one["split"] for one in proof["differences"]} == {"held_out", "unseen"}
    assert all(one["sentence"] for one in proof["differences"])
    for row in proof["rows"]:
        of_tools = [t for t in proof["tools"] if (t["phase"], t["split"]) == (row["phase"], row["split"])]
        assert sum(tool["calls"] for tool in of_tools) == row["calls"]
        assert sum(tool["calls_ok"] for tool in of_tools) == row["calls_ok"]
        assert all(
            t["reliability"]["low"] <= t["reliability"]["value"] <= t["reliability"]["high"] for t in of_tools
        )


def test_practice_lists_runs_of_a_scenario(client: TestClient, run: str) -> None:
    found = get(client, "/practice", scenario=SCENARIO)["data"]
    assert run in [one["id"] for one in found]
    assert all(len(one["rows"]) == 4 for one in found)
    assert get(client, "/practice", scenario="star")["data"] == []
    assert get(client, "/practice", process="agents.evaluate")["data"] == []


def test_traces_that_grow_are_read_on(client: TestClient, settings: Settings) -> None:
    run, folder = own_run(settings)
    before = get(client, f"/runs/{run}/episodes", phase="practice", limit=200)["data"]
    with TraceWriter(folder / "rollouts.jsonl") as trace:
        trace.write(step=1, episode="7.0-99", proposed={"type": "message", "text": "Hello."}, reward=0.25)
        first = get(client, f"/runs/{run}/episodes", phase="practice", limit=200)["data"]
        trace.write(
            step=2, episode="7.0-99", proposed={"type": "message", "text": "Bye."}, reward=0.5, solved=True
        )
    after = get(client, f"/runs/{run}/episodes", phase="practice", limit=200)["data"]
    assert len(first) == len(after) == len(before) + 1
    assert (first[0]["steps"], first[0]["solved"]) == (1, None)
    assert (after[0]["steps"], after[0]["solved"], after[0]["reward"]) == (2, True, 0.75)


def test_trace_that_was_written_anew_is_read_anew(client: TestClient, settings: Settings) -> None:
    run, folder = own_run(settings)
    get(client, f"/runs/{run}/episodes")
    file = folder / "after-held_out.jsonl"
    file.unlink()
    with TraceWriter(file) as trace:
        trace.write(step=1, episode="other", proposed={"type": "message", "text": "New."}, reward=1.0)
    page = get(client, f"/runs/{run}/episodes", phase="after", split="held_out")
    assert page["data"] == []
    (one,) = [e for e in get(client, f"/runs/{run}/episodes", phase="after")["data"] if e["name"] == "other"]
    assert one["reward"] == 1.0
    counts = {row["phase"]: row["episodes"] for row in page["phases"]}
    assert counts["after"] == 2  # this one, and that of the other split


def test_an_episode_that_is_played_again_under_its_name_is_another_one(
    client: TestClient, settings: Settings
) -> None:
    run, folder = own_run(settings)
    with TraceWriter(folder / "rollouts.jsonl") as trace:
        for reward in (0.1, 0.2):
            trace.write(
                step=1, episode="8.0-0", proposed={"type": "message", "text": "Hello."}, reward=reward
            )
    found = [e for e in get(client, f"/runs/{run}/episodes", limit=200)["data"] if e["name"] == "8.0-0"]
    assert sorted(one["reward"] for one in found) == [0.1, 0.2]


def test_index_that_is_no_database_is_made_anew(client: TestClient, settings: Settings) -> None:
    run, folder = own_run(settings)
    wanted = get(client, f"/runs/{run}/episodes", limit=200)["data"]
    for file in (folder / traces.FOLDER).glob("index.db*"):
        file.write_bytes(b"no database at all" * 1_000)
    found = get(client, f"/runs/{run}/episodes", limit=200)["data"]
    assert {one["id"] for one in found} == {one["id"] for one in wanted}


def test_lines_that_cannot_be_read_are_left_out(client: TestClient, settings: Settings) -> None:
    run, folder = own_run(settings)
    nested = "[" * 100_000
    with (folder / "rollouts.jsonl").open("ab") as file:
        file.write(b'\xff\xfe{"step": 1}\n[1, 2]\nnull\n{"step": "one", "reward": "much", "proposed": 3}\n')
        file.write(f'{{"step": 1, "episode": "deep", "proposed": {nested}\n'.encode())
        file.write(
            b'{"step": 1, "episode": "nan", "reward": NaN, "time_s": 1e400, "proposed": {"type": "tool"}}\n'
        )
    found = get(client, f"/runs/{run}/episodes", limit=200)["data"]
    assert {"nan", ""} <= {one["name"] for one in found}
    assert "deep" not in {one["name"] for one in found}
    for one in found:
        get(client, f"/runs/{run}/episodes/{one['id']}")


def test_hostile_steps_of_ten_megabytes_are_answered_quickly_and_cut(
    client: TestClient, settings: Settings
) -> None:
    run, folder = own_run(settings)
    with TraceWriter(folder / "rollouts.jsonl") as trace:
        tool = {"type": "tool", "name": SCRIPT, "arguments": {SCRIPT: BIG, "list": [0] * 100_000}}
        trace.write(step=1, episode=f"9.0-{SCRIPT}", observation=SCRIPT, proposed=tool, reward=1.0)
        trace.write(step=2, episode=f"9.0-{SCRIPT}", observation=BIG, proposed={"type": "ui", "key": SCRIPT})
    while not (page := get(client, f"/runs/{run}/episodes"))["complete"]:
        pass
    one = page["data"][0]
    assert one["request"].startswith(SCRIPT)
    began_s = time.process_time()
    answer = client.get(f"/runs/{run}/episodes/{one['id']}")
    assert time.process_time() - began_s < 2.0
    assert len(answer.content) < 300_000
    first = answer.json()["data"][0]
    assert first["cut"]
    assert first["proposed"]["name"] == SCRIPT


def test_line_beyond_all_measure_is_counted_and_not_shown(client: TestClient, settings: Settings) -> None:
    run, folder = own_run(settings)
    huge = json.dumps({"time_s": 1.0, "step": 1, "run": run, "episode": "9.1-0", "result": "y" * (17 << 20)})
    with (folder / "rollouts.jsonl").open("a") as file:
        file.write(huge + "\n")
    while not (page := get(client, f"/runs/{run}/episodes"))["complete"]:
        pass
    (step,) = get(client, f"/runs/{run}/episodes/{page['data'][0]['id']}")["data"]
    assert step["cut"]
    assert "too many to show" in step["result"]


def test_link_in_the_folder_of_traces_is_not_followed(
    client: TestClient, settings: Settings, tmp_path: Path
) -> None:
    run, folder = own_run(settings)
    outside = tmp_path / "outside.jsonl"
    with TraceWriter(outside) as trace:
        trace.write(step=1, episode="secret", proposed={"type": "message", "text": "secret"})
    os.symlink(outside, folder / "outside.jsonl")
    assert "secret" not in {one["name"] for one in get(client, f"/runs/{run}/episodes", limit=200)["data"]}


def test_run_without_traces_has_no_episodes(client: TestClient, settings: Settings) -> None:
    run, folder = own_run(settings)
    for file in folder.glob("*.jsonl"):
        file.unlink()
    folder.rename(folder.with_name("elsewhere"))
    page = get(client, f"/runs/{run}/episodes")
    assert (page["data"], page["complete"], page["phases"]) == ([], True, [])
    assert not folder.exists()


def test_deployed_agent_has_episodes_by_version(client: TestClient, settings: Settings) -> None:
    guard = {"name": "open", "version": "1", "rules": []}
    deployment.write(settings, deployment.Deployment("till", "1.0", "echo", "", "", tools=(), guard=guard))
    deployment.activate(settings, "till", "1.0")
    assert get(client, "/deployments/till/episodes")["data"] == []
    with TraceWriter(deployment.root(settings) / "till" / "traces" / "v1.0.jsonl") as trace:
        tool = {"type": "tool", "name": "look", "arguments": {}}
        trace.write(step=1, episode="ab12", proposed=tool, verdict="refuse", reasons=["no."], ok=False)
        trace.write(
            step=2, episode="ab12", proposed=tool, verdict="allow", executed=tool, result="{}", ok=True
        )
    (one,) = get(client, "/deployments/till/episodes", phase="v1.0", stopped=True)["data"]
    assert (one["calls"], one["calls_ok"], one["solved"]) == (2, 1, None)
    steps = get(client, f"/deployments/till/episodes/{one['id']}")["data"]
    assert [step["verdict"] for step in steps] == ["refuse", "allow"]
    assert client.get("/deployments/none/episodes").status_code == 404


def test_client_reads_episodes_and_proof(settings: Settings, run: str) -> None:
    with Server({}, settings, mounts={PREFIX: create_app(settings)}) as server, Client(server.url) as lab:
        found = list(lab.episodes(run, phase="after", solved=True))
        assert len(found) == 2 * TASKS
        assert len(lab.episode(run, found[0].id).data) == found[0].steps
        assert {row.phase for row in lab.proof(run).rows} == {"before", "after"}
