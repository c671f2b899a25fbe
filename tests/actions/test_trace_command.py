"""`melete trace`: show, stats and replay, by path and by run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from melete.actions.trace import TraceWriter
from melete.settings import Settings

Call = Callable[..., tuple[int, str, str]]

STEPS = [
    {
        "proposed": {"type": "tool", "name": "get", "arguments": {"id": "O-1"}},
        "verdict": "allow",
        "executed": {"type": "tool", "name": "get", "arguments": {"id": "O-1"}},
        "result": "found",
        "ok": True,
        "reward": 0.25,
    },
    {
        "proposed": {"type": "tool", "name": "pay", "arguments": {}},
        "verdict": "refuse",
        "reasons": ["pay is refused: no."],
        "rule": "precondition",
        "executed": None,
        "reward": -0.5,
    },
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for episode in ("e1", "e2"):
        with TraceWriter(tmp_path / "traces" / f"{episode}.jsonl") as writer:
            for number, step in enumerate(STEPS, 1):
                writer.write(episode=episode, step=number, **step)
    return tmp_path


def test_show_prints_steps_with_verdict_reason_and_no_colour_in_a_pipe(folder: Path, call: Call) -> None:
    code, out, _ = call("trace", "show", str(folder))
    lines = out.splitlines()
    assert code == 0
    assert lines[1].split() == ["e1", "1", "allow", 'get(id="O-1")', "found", "0.25"]
    assert "refuse   pay()          pay is refused: no.    -0.5" in lines[2]
    assert "\x1b" not in out


def test_show_of_one_episode_with_a_limit_says_that_there_is_more(folder: Path, call: Call) -> None:
    _, out, _ = call("trace", "show", str(folder), "--episode", "e2", "--limit", "1")
    assert "e1" not in out
    assert "The first 1 steps." in out


def test_show_as_json_is_the_steps(folder: Path, call: Call) -> None:
    _, out, _ = call("trace", "show", str(folder / "traces" / "e1.jsonl"), "--json")
    assert [step["step"] for step in json.loads(out)] == [1, 2]


def test_stats_shows_reliability_with_interval_and_refusals_by_rule(folder: Path, call: Call) -> None:
    code, out, _ = call("trace", "stats", str(folder))
    text = " ".join(out.split())
    assert code == 0
    assert "tool reliability 0.5 [0.15, 0.85] n=4" in text
    assert "refused by steps precondition 2" in text
    assert "get 2 2 100.0%" in text


def test_stats_as_json_keeps_every_figure(folder: Path, call: Call) -> None:
    values = json.loads(call("trace", "stats", str(folder), "--json")[1])
    assert values["tool_reliability"]["count"] == 4
    assert values["rewards"] == {"e1": -0.25, "e2": -0.25}


def test_replay_without_a_guard_fails_on_a_trace_that_is_not_sound(folder: Path, call: Call) -> None:
    assert call("trace", "replay", str(folder))[0] == 0
    with TraceWriter(folder / "traces" / "e3.jsonl") as writer:
        writer.write(**{**STEPS[1], "episode": "e3", "step": 1, "executed": STEPS[1]["proposed"]})
    code, out, _ = call("trace", "replay", str(folder))
    assert code == 1
    assert "executed although the verdict is refuse" in out


def test_replay_with_a_guard_file_tells_what_would_change(folder: Path, call: Call) -> None:
    guard = folder / "g.yaml"
    guard.write_text("name: g\nversion: 1\nrules: [{allow_list: {tools: [pay]}}]")
    code, out, _ = call("trace", "replay", str(folder), "--guard", str(guard), "--episode", "e1")
    assert code == 0
    assert "allow → refuse: get is refused: it is not among what is allowed (pay)." in out
    assert "refuse → allow" in out
    assert f"2 steps; {guard} would judge 2 of them differently." in out


def test_trace_of_a_run_is_found_by_its_reference(home: Settings, folder: Path, call: Call) -> None:
    run = home.runs / "20261120-120000-train-abcd"
    (run / "traces").mkdir(parents=True)
    (folder / "traces" / "e1.jsonl").rename(run / "traces" / "e1.jsonl")
    assert "e1" in call("trace", "show", "20261120-12")[1]


def test_wrong_name_and_run_without_traces_are_one_message(home: Settings, folder: Path, call: Call) -> None:
    (home.runs / "20261120-120000-train-abcd").mkdir(parents=True)
    assert call("trace", "show", "nothing")[0] == 2
    code, _, error = call("trace", "stats", "latest")
    assert code == 2
    assert "has no traces" in error
