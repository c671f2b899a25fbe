"""Figures and log of a run in the API: thinned without losing a spike, read on as they grow, right after a rewrite."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from melete.api import columns
from melete.api.app import create_app
from melete.errors import StorageError
from melete.runs import folder
from melete.settings import Settings
from melete.supervision import one_at_a_time


@pytest.fixture
def run(home: Settings) -> Path:
    """The folder of an empty run."""
    return folder.create(home, "trial.count")[0]


@pytest.fixture
def ask(home: Settings, run: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Asks for a part of the run."""
    with TestClient(create_app(home), raise_server_exceptions=False) as client:

        def get(part: str, status: int = 200, **asked: Any) -> dict[str, Any]:
            while True:
                answer = client.get(f"/runs/{run.name}/{part}", params=asked)
                assert answer.status_code == status, answer.text
                if answer.json().get("complete", True):
                    return dict(answer.json())

        yield get


def write(run: Path, steps: range, mode: str = "a", **figures: Callable[[int], Any]) -> None:
    """Appends a line for each step."""
    with (run / "metrics.jsonl").open(mode, encoding="utf-8") as file:
        for step in steps:
            values = {key: value(step) for key, value in figures.items()}
            file.write(json.dumps({"step": step, "time_s": 100.0 + step, **values}) + "\n")


def test_figures_without_keys_are_summed_up(ask: Callable[..., dict[str, Any]], run: Path) -> None:
    write(run, range(10), loss=lambda step: 10.0 - step)
    write(run, range(10, 12), val_loss=lambda step: math.nan)
    found = ask("metrics")
    assert found["complete"]
    assert found["read_bytes"] == found["total_bytes"] > 0
    loss, val_loss = found["figures"]
    assert (loss["count"], loss["minimum"], loss["maximum"], loss["last"], loss["last_step"]) == (
        10,
        1,
        10,
        1,
        9,
    )
    assert (val_loss["count"], val_loss["not_finite"], val_loss["minimum"], val_loss["last"]) == (
        2,
        2,
        None,
        None,
    )
    assert loss["values"] == []
    assert ask("metrics", keys="val_loss")["figures"][0]["gaps"] == [10, 11]


def test_points_of_a_figure_have_their_steps_and_times(ask: Callable[..., dict[str, Any]], run: Path) -> None:
    write(run, range(3), loss=float)
    write(run, range(3, 6), other=float)
    write(run, range(6, 8), other=float, loss=lambda step: math.inf if step == 6 else -1.0)
    (loss,) = ask("metrics", keys="loss")["figures"]
    assert (loss["steps"], loss["values"]) == ([0, 1, 2, 7], [0, 1, 2, -1])
    assert loss["times_s"] == [100, 101, 102, 107]
    other, loss = ask("metrics", **{"keys": "other,loss", "from": 2, "to": 6})["figures"]
    assert (loss["steps"], other["steps"]) == ([2], [3, 4, 5, 6])


def test_spike_of_a_long_series_stays(ask: Callable[..., dict[str, Any]], run: Path) -> None:
    chance = random.Random(1)
    write(run, range(20_000), loss=lambda step: {7_777: 50.0, 13_131: -50.0}.get(step, chance.random()))
    (loss,) = ask("metrics", keys="loss", max=100)["figures"]
    assert len(loss["values"]) <= 100
    assert {7_777: 50, 13_131: -50}.items() <= dict(zip(loss["steps"], loss["values"], strict=True)).items()
    assert (loss["steps"][0], loss["steps"][-1]) == (0, 19_999)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=300), st.integers(10, 60))
def test_thinned_series_is_in_order_within_its_limit_and_has_the_extremes(
    values: list[float], most: int
) -> None:
    kept = columns.thinned(np.array(values), most)
    shown = [values[at] for at in kept]
    assert len(kept) <= most
    assert list(kept) == sorted(set(kept))
    assert (kept[0], kept[-1]) == (0, len(values) - 1)
    assert (min(shown), max(shown)) == (min(values), max(values))


def test_figures_grow_with_the_run_and_a_line_that_is_being_written_waits(
    ask: Callable[..., dict[str, Any]], run: Path
) -> None:
    write(run, range(5), loss=float)
    assert ask("metrics")["figures"][0]["count"] == 5
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "time_s": 105.0, "lo')
    assert ask("metrics")["figures"][0]["count"] == 5
    with (run / "metrics.jsonl").open("a") as file:
        file.write('ss": 5.0}\n')
    write(run, range(6, 8), loss=float)
    (loss,) = ask("metrics", keys="loss")["figures"]
    assert loss["steps"] == list(range(8))


def test_file_that_a_resume_has_rewritten_is_read_anew(ask: Callable[..., dict[str, Any]], run: Path) -> None:
    write(run, range(50), loss=float)
    assert ask("metrics")["figures"][0]["count"] == 50
    write(run, range(20), "w", loss=float)
    write(run, range(20, 60), loss=lambda step: -float(step))
    (loss,) = ask("metrics", keys="loss")["figures"]
    assert (loss["count"], loss["steps"], loss["values"][-1]) == (60, list(range(60)), -59)


def test_columns_that_were_torn_or_thrown_away_are_made_again(
    ask: Callable[..., dict[str, Any]], run: Path
) -> None:
    write(run, range(50), loss=float)
    ask("metrics")
    head = run / columns.FOLDER / "head.json"
    before = head.read_text()
    write(run, range(50, 60), loss=float)
    ask("metrics")
    head.write_text(before)  # killed between the columns and their head
    assert ask("metrics", keys="loss")["figures"][0]["steps"] == list(range(60))
    head.write_text("{")
    assert ask("metrics", keys="loss")["figures"][0]["steps"] == list(range(60))
    head.unlink()
    assert ask("metrics", keys="loss")["figures"][0]["values"] == list(range(60))


def test_figures_of_a_long_run_come_piece_by_piece(run: Path) -> None:
    write(run, range(60_000), loss=float, lr=float)
    pieces = [columns.read(run, budget_s=0.02)]
    assert not pieces[0].complete
    while not pieces[-1].complete:
        pieces.append(columns.read(run, budget_s=0.02))
    counts = [piece.head.figures["loss"].count if piece.head.figures else 0 for piece in pieces]
    assert counts == sorted(counts)
    assert counts[-1] == 60_000


def test_two_readers_at_once_do_not_write_twice(run: Path) -> None:
    write(run, range(100), loss=float)
    (run / columns.FOLDER).mkdir()
    with one_at_a_time(run / columns.FOLDER / "lock"):
        assert not columns.read(run).complete
    assert columns.read(run).head.figures["loss"].count == 100


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1, 2]",
        '{"step": "x", "loss": 1}',
        '{"loss": 1}',
        '{"step": 2, "loss": "text", "a": null, "b": [1], "c": true}',
        '{"step": 2, "loss": 1' + "0" * 400 + "}",
        '{"step": 2, "loss": {"deep": {}}}',
        "[" * 100_000,
        '{"step": 2, "' + "k" * 2_000_000 + '": 1}',
        '{"step": 2, "\\ud800": 1}',
        "\x00\x01",
    ],
)
def test_line_that_is_none_costs_no_other_line(
    ask: Callable[..., dict[str, Any]], run: Path, line: str
) -> None:
    write(run, range(2), loss=float)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    write(run, range(3, 5), loss=float)
    found = ask("metrics")
    assert found["complete"]
    (loss,) = ask("metrics", keys="loss")["figures"]
    assert set(loss["steps"]) >= {0, 1, 3, 4}


def test_unknown_figure_is_404_with_the_closest(ask: Callable[..., dict[str, Any]], run: Path) -> None:
    write(run, range(2), loss=float)
    assert "Did you mean 'loss'?" in ask("metrics", 404, keys="los")["error"]["message"]


def test_columns_that_cannot_be_written_are_one_message(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(run, range(2), loss=float)
    (run / columns.FOLDER).write_text("a file where the folder should be")
    with pytest.raises(StorageError, match=r"head\.json was not written"):
        columns.read(run)


def log(run: Path, *lines: str) -> None:
    with (run / "log.txt").open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def texts(page: dict[str, Any]) -> list[str]:
    return [line["text"] for line in page["data"]]


def test_log_is_read_from_its_end_to_its_beginning(ask: Callable[..., dict[str, Any]], run: Path) -> None:
    log(run, *(f"line {n}" for n in range(500)))
    found, cursor = [], None
    while found == [] or cursor is not None:
        page = ask("log", limit=130, **({"cursor": cursor} if cursor else {}))
        found, cursor = texts(page) + found, page["next_cursor"]
    assert found == [f"line {n}" for n in range(500)]


def test_log_is_followed(ask: Callable[..., dict[str, Any]], run: Path) -> None:
    log(run, "one", "two")
    page = ask("log")
    assert texts(page) == ["one", "two"]
    assert texts(ask("log", after=page["end"])) == []
    log(run, "three", "four", "five")
    page = ask("log", after=page["end"], limit=2)
    assert texts(page) == ["three", "four"]
    assert texts(ask("log", after=page["end"])) == ["five"]


def test_log_is_searched_in_any_case(ask: Callable[..., dict[str, Any]], run: Path) -> None:
    log(run, *(f"{'Warnung' if n % 100 == 7 else 'line'} {n}" for n in range(1_000)))
    assert texts(ask("log", search="WARNUNG 5")) == ["Warnung 507"]
    page = ask("log", search="warnung", limit=4)
    assert texts(page) == [f"Warnung {n}" for n in (607, 707, 807, 907)]
    older = ask("log", search="warnung", limit=4, cursor=page["next_cursor"])
    assert texts(older) == [f"Warnung {n}" for n in (207, 307, 407, 507)]
    refused = ask("log", 400, search="other", cursor=page["next_cursor"])
    assert "keep the filters" in refused["error"]["message"]


def test_line_of_ten_megabytes_is_cut_and_its_neighbours_are_there(
    ask: Callable[..., dict[str, Any]], run: Path
) -> None:
    log(run, "before", "<script>" + "x" * 10_000_000, "after \x1b[31mred\r")
    seen, cursor = list[str](), None
    for _ in range(20):
        page = ask("log", **({"cursor": cursor} if cursor else {}))
        seen, cursor = texts(page) + seen, page["next_cursor"]
        assert all(len(text) <= 4_000 for text in texts(page))
        if cursor is None:
            break
    assert cursor is None
    assert (seen[0], seen[-1]) == ("before", "after \x1b[31mred")


def test_log_that_is_not_there_is_empty(ask: Callable[..., dict[str, Any]]) -> None:
    assert ask("log") == {"object": "list", "data": [], "next_cursor": None, "end": 0}
