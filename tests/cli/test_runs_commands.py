"""`melete runs`: list, show, compare, stop, resume, report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from melete.jobs.execute import Options, execute
from melete.records import RunState
from melete.runs import checkpoints, folder
from melete.runs.lines import last_json_lines
from melete.settings import Settings
from trial_runs import started_run

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def two(home: Settings, capsys: pytest.CaptureFixture[str]) -> list[str]:
    for name, rate in (("slow", 0.5), ("fast", 0.9)):
        execute("trial.count", {"steps": 4, "rate": rate, "save_every": 4}, Options(home, name=name))
    capsys.readouterr()
    return folder.ids(home.runs)


def test_list_of_an_empty_home_says_how_to_start(call: Call) -> None:
    code, out, _ = call("runs", "list")
    assert code == 0
    assert "No runs yet" in out


def test_list_shows_the_newest_first_with_state_step_and_loss(two: list[str], call: Call) -> None:
    _, out, _ = call("runs", "list")
    head, *rows = [line.split() for line in out.splitlines()]
    assert head == ["id", "name", "process", "state", "step", "loss", "age"]
    assert [row[:5] for row in rows] == [
        [two[1], "fast", "trial.count", "succeeded", "4"],
        [two[0], "slow", "trial.count", "succeeded", "4"],
    ]
    assert 0.2 < float(rows[0][5]) < 0.25


def test_list_filters_and_limits(two: list[str], call: Call) -> None:
    assert json.loads(call("runs", "list", "--state", "failed", "--json")[1]) == []
    assert [row["id"] for row in json.loads(call("runs", "list", "--limit", "1", "--json")[1])] == two[1:]
    assert len(json.loads(call("runs", "list", "--process", "trial.count", "--json")[1])) == 2


def test_list_everywhere_asks_the_database(two: list[str], call: Call) -> None:
    rows = json.loads(call("runs", "list", "--everywhere", "--json")[1])
    assert [row["id"] for row in rows] == two[::-1]
    assert all(row["location"].endswith("/home") for row in rows)


def test_show_tells_state_figures_checkpoints_and_provenance(two: list[str], call: Call) -> None:
    code, out, _ = call("runs", "show", "fast")
    assert code == 0
    for part in (
        two[1],
        "succeeded",
        "tokens_per_s",
        "0.5 [0.35, 0.65] n=40",
        f"{two[1]}:4  trial",
        "seed",
        "commit",
    ):
        assert part in out or part == "commit"
    assert json.loads(call("runs", "show", "fast", "--json")[1])["provenance"]["seed"] == 1337


def test_compare_shows_only_the_config_keys_that_differ(two: list[str], call: Call) -> None:
    _, out, _ = call("runs", "compare", "slow", "fast")
    lines = [line.split() for line in out.splitlines()]
    assert ["rate", "0.5", "0.9"] in lines
    assert not any(line[:1] == ["save_every"] for line in lines)
    compared = json.loads(call("runs", "compare", "slow", "fast", "--json")[1])
    assert compared["config"] == {"rate": [0.5, 0.9]}
    assert compared["figures"]["step"] == [4, 4]


def test_report_is_written_anew(home: Settings, two: list[str], call: Call) -> None:
    page = home.runs / two[0] / "report.html"
    page.unlink()
    _, out, _ = call("runs", "report", "slow")
    assert Path(out.strip()) == page
    assert page.exists()


def test_resume_of_a_failed_run_continues_it(home: Settings, call: Call) -> None:
    call("trial", "count", "--steps", "6", "--fail-at", "3", "--save-every", "1")
    code, _, err = call("runs", "resume", "latest")
    assert code == 0
    assert "succeeded" in err


def test_resume_of_a_run_that_succeeded_is_refused(two: list[str], call: Call) -> None:
    code, _, err = call("runs", "resume", "fast")
    assert code == 6
    assert "nothing is left to resume" in err


@pytest.mark.slow
def test_stop_of_a_live_run_ends_it_as_stopped(home: Settings, call: Call) -> None:
    with started_run(home, "--steps", "100000", "--hold-s", "0.01", "--save-every", "50000") as (child, path):
        code, out, _ = call("runs", "stop", path.name)
        assert code == 0
        assert f"melete runs resume {path.name}" in out
        assert child.wait(30) == 130
        assert folder.read(path).state is RunState.STOPPED
        saved = checkpoints.latest(path / "checkpoints")
        assert saved is not None
        assert checkpoints.read(saved).step == last_json_lines(path / "metrics.jsonl")[-1]["step"]


def test_stop_with_kill_leaves_a_lost_run(home: Settings, call: Call) -> None:
    with started_run(home, "--steps", "100000", "--hold-s", "0.01") as (child, path):
        assert call("runs", "stop", path.name, "--kill")[0] == 0
        assert child.wait(30) == -9
        assert folder.read(path).state is RunState.LOST


def test_stop_of_a_run_that_has_ended_is_refused(two: list[str], call: Call) -> None:
    code, _, err = call("runs", "stop", "fast")
    assert code == 6
    assert "nothing to stop" in err


def test_unknown_run_answers_with_the_closest(two: list[str], call: Call) -> None:
    code, _, err = call("runs", "show", "fats")
    assert code == 2
    assert "Did you mean 'fast'?" in err
