"""How far a run is, as its folder tells it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from melete.runs import headway
from melete.runs.lines import last_json_lines
from melete.runs.run import Run


def test_loop_that_is_walked_is_told_with_the_time_left(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in run.steps(8, what="problems"):
        run.log(step + 1, {"loss": 1.0})
        if step == 3:
            found = headway.read(tmp_path, last_json_lines(tmp_path / "metrics.jsonl")[-1])
    assert found is not None
    assert (found.what, found.done, found.total) == ("problems", 4, 8)
    assert found.left_s is not None
    assert found.left_s >= 0


def test_loop_before_its_first_figures_is_at_its_start(tmp_path: Path) -> None:
    headway.begin(tmp_path, "steps", 20, 100)
    assert headway.read(tmp_path, {"step": 60, "time_s": 1.0}) == headway.Headway("steps", 20, 100, None)


def test_limit_in_time_shortens_the_estimate(tmp_path: Path) -> None:
    headway.begin(tmp_path, "steps", 0, 1_000_000)
    found = headway.read(tmp_path, {"step": 1, "time_s": 9e9, "left_s": 12.0})
    assert found is not None
    assert found.left_s == 12.0


def test_figures_of_the_same_millisecond_leave_no_negative_time(tmp_path: Path) -> None:
    headway.begin(tmp_path, "steps", 0, 8)
    began_s = json.loads((tmp_path / headway.FILE).read_text())["began_s"]
    found = headway.read(tmp_path, {"step": 4, "time_s": began_s - 0.0005})
    assert found == headway.Headway("steps", 4, 8, 0.0)


def test_run_that_was_asked_to_stop_says_so_in_its_folder(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert not headway.is_ending(tmp_path)
    run.stop()
    assert headway.is_ending(tmp_path)


@pytest.mark.parametrize("text", [None, "", "[]", '{"what": "steps", "start": "x"}'])
def test_folder_that_does_not_tell_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / headway.FILE).write_text(text)
    assert headway.read(tmp_path, {}) is None
