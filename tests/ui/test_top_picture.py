"""What the dashboard makes of the API's answers, without a terminal: columns that fit, spikes that stay, safe text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete.ui.top import picture
from melete.ui.top.photo import without_fonts


def run(**values: object) -> dict[str, object]:
    """A run as the API lists it."""
    return {
        "id": "r1", "process": "llm.sft", "state": "succeeded", "name": "one", "created_s": 1.0, "ended_s": 61.0,
        "step": 1_200, "last": {}, **values,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("width", "names"),
    [(20, ["run"]), (45, ["state", "run", "step"]), (80, ["state", "run", "step", "figures", "age"])],
)
def test_columns_that_are_needed_most_stay_where_there_is_little_room(width: int, names: list[str]) -> None:
    assert [column.name for column in picture.fitting(picture.RUN_COLUMNS, width)] == names


@given(width=st.integers(1, 400))
def test_columns_never_need_more_than_there_is(width: int) -> None:
    chosen = picture.fitting(picture.JOB_COLUMNS, width)
    assert len(chosen) == 1 or sum(column.width + picture.GAP for column in chosen) <= width


def test_runs_that_run_come_first_then_the_newest() -> None:
    rows = picture.run_rows(
        [
            run(id="old", created_s=1.0),
            run(id="new", created_s=9.0),
            run(id="on", state="running", created_s=0.0),
        ]
    )
    assert list(rows) == ["on", "new", "old"]
    assert (rows["old"]["step"], rows["old"]["age"]) == ("1,200", "1:00")


def test_filter_keeps_what_holds_the_word_in_any_cell() -> None:
    runs = [run(id="a", name="base"), run(id="b", process="agents.train")]
    assert list(picture.run_rows(runs, "AGENTS")) == ["b"]


@given(st.text())
def test_text_of_a_run_reaches_the_terminal_as_printable_characters_only(text: str) -> None:
    assert picture.shown(text).isprintable()


def test_curve_of_many_points_keeps_a_single_spike() -> None:
    curve = picture.Curve("loss")
    values = [1.0] * 5_000
    values[3_333] = 9.0
    figure = {"key": "loss", "steps": list(range(5_000)), "values": values}
    curve.take({"whole": {"figures": [figure]}})
    steps, shown = curve.points(60)
    assert len(shown) <= 60 * picture.POINTS_A_CELL
    assert shown[steps.index(3_333)] == 9.0


def test_curve_grows_by_what_is_new_and_begins_anew_with_a_whole() -> None:
    curve = picture.Curve("loss")
    curve.take({"whole": {"figures": [{"key": "loss", "steps": [0.0], "values": [3.0]}]}})
    curve.take({"more": {"figures": [{"key": "loss", "steps": [1.0], "values": [2.0]}]}})
    assert curve.points(10) == ([0.0, 1.0], [3.0, 2.0])
    curve.take({"whole": {"figures": []}})
    assert curve.points(10) == ([], [])


def test_curve_of_a_long_run_holds_a_limited_number_of_points() -> None:
    curve = picture.Curve("loss")
    for first in range(0, 60_000, 10_000):
        points = [float(at) for at in range(first, first + 10_000)]
        curve.take({"more": {"figures": [{"key": "loss", "steps": points, "values": points}]}})
    assert len(curve.values) <= picture.MOST_POINTS
    assert (curve.steps[0], curve.steps[-1]) == (0.0, 59_999.0)


def test_figure_that_was_chosen_is_kept_where_a_run_has_it() -> None:
    assert picture.choose(["lr", "loss"], "lr") == "lr"
    assert picture.choose(["lr", "loss"], "reward") == "loss"
    assert picture.choose([], "lr") == ""


def test_photograph_names_no_address_to_fetch_fonts_from() -> None:
    font = '@font-face { font-family: "Fira Code"; src: url("https://cdn.example/f.woff2"); }'
    svg = f"<style>{font}\n.t {{ font-family: Fira Code, monospace; }}</style>"
    assert "http" not in without_fonts(svg)
    assert "monospace" in without_fonts(svg)
