"""Pages of runs and of their comparison, asked in process over real runs."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from melete.api.whole import mounts
from melete.errors import TrainingError
from melete.jobs.execute import Options, execute
from melete.settings import Settings
from melete.ui import lineage, samples, scores
from melete.ui.pages import compare, runs
from runs_at_hand import STEPS, fill_runs
from web_at_hand import HOSTILE

TABS = [tab.lower() for tab in runs.TABS]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, str, str, str]:
    """A home with two runs and a hostile one; its settings and their ids."""
    folder = tmp_path_factory.mktemp("runs")
    home = Settings.of(folder)
    first, second = fill_runs(home)
    hostile = execute("trial.count", {"steps": 3, "words": [HOSTILE]}, Options(home, name=HOSTILE)).id
    (home.runs / hostile / "note.md").write_text(HOSTILE, encoding="utf-8")
    (home.runs / hostile / "samples" / f"00000002_{HOSTILE.replace('/', '')}.txt").write_text(HOSTILE)
    return home, first, second, hostile


@pytest.fixture(scope="module")
def site(filled: tuple[Settings, str, str, str]) -> Iterator[TestClient]:
    """Pages and API over that home, without a gate."""
    app = Starlette(routes=[Mount(path, one) for path, one in mounts(filled[0]).items()])
    with TestClient(app) as client:
        yield client


def test_list_shows_names_states_figures_and_notes(site: TestClient, filled: Any) -> None:
    _, first, second, _ = filled
    site.put(f"/api/v1/runs/{first}/note", json={"text": "\n# Diverged at 300\nmore"})
    page = site.get("/runs").text
    assert page.index(f"/runs/{second}") < page.index(f"/runs/{first}")
    assert "state-succeeded" in page
    assert re.search(r"loss</span> 0\.\d+", page)
    assert "# Diverged at 300" in page
    assert 'data-live="/parts/runs/list?"' in page


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("search=FIRS", ["first"]),
        ("process=trial.count&state=succeeded&search=second", ["second"]),
        ("state=failed", []),
        ("until=2001-01-01", []),
        ("since=2001-01-01&search=first", ["first"]),
    ],
)
def test_list_filters_by_what_the_address_says(site: TestClient, query: str, shown: list[str]) -> None:
    page = site.get(f"/runs?{query}").text
    assert re.findall(r'<a href="/runs/[^"?]+">(\w+)</a>', page) == shown
    if not shown:
        assert "No run matches" in page


def test_list_refuses_what_is_no_day(site: TestClient) -> None:
    answer = site.get("/runs?since=yesterday")
    assert answer.status_code == 400
    assert "yesterday is no day" in answer.text


def test_list_of_an_empty_home_says_what_to_do(home: Settings) -> None:
    app = Starlette(routes=[Mount(path, one) for path, one in mounts(home).items()])
    with TestClient(app) as client:
        page = client.get("/runs").text
    assert "No runs yet" in page
    assert "melete llm pretrain" in page


@pytest.mark.parametrize("tab", TABS)
def test_every_tab_of_a_run_is_a_page(site: TestClient, filled: Any, tab: str) -> None:
    answer = site.get(f"/runs/{filled[1]}?tab={tab}")
    assert answer.status_code == 200
    assert f'aria-current="page">{tab.capitalize()}' in answer.text
    assert not re.search(r"<script>|\sstyle=|\son[a-z]+=\"", answer.text)


def test_head_says_step_total_and_how_long_it_took(site: TestClient, filled: Any) -> None:
    part = site.get(f"/parts/runs/{filled[1]}/head").text
    assert re.search(rf"<b>{STEPS}</b> <span class=\"soft\">of {STEPS}", part)
    assert "in all" in part
    assert "Stop" not in part


def test_head_of_a_failed_run_gives_the_command_that_continues_it(site: TestClient, filled: Any) -> None:
    home = filled[0]
    with pytest.raises(TrainingError):
        execute("trial.count", {"steps": 3, "fail_at": 1}, Options(home, name="failing"))
    failed = site.get("/api/v1/runs?name=failing").json()["data"][0]["id"]
    part = site.get(f"/parts/runs/{failed}/head").text
    assert f"melete runs resume {failed}" in part
    assert "The loss became nan at step 1" in part


def test_stop_of_a_run_that_has_ended_says_that_there_is_nothing_to_stop(
    site: TestClient, filled: Any
) -> None:
    answer = site.post(f"/runs/{filled[1]}/stop", headers={"HX-Request": "true"})
    assert answer.status_code == 409
    assert "nothing to stop" in answer.text


def test_config_gives_yaml_derived_values_and_the_command_again(site: TestClient, filled: Any) -> None:
    page = site.get(f"/runs/{filled[1]}?tab=config").text
    assert f"steps: {STEPS}\n" in page
    assert f"melete trial count --steps {STEPS}" in page
    assert "steps times rate" in page


def test_links_of_a_run_begin_a_job_with_its_values(site: TestClient, filled: Any) -> None:
    first = filled[1]
    again = site.get(f"/jobs/new?process=trial.count&of={first}&rate=0.25")
    assert again.status_code == 200
    assert f"steps: {STEPS}" in again.text
    assert "rate: 0.25" in again.text
    exam = site.get(f"/jobs/new?process=llm.evaluate&run={first}:{STEPS}").text
    assert f"run: {first}:{STEPS}" in exam


def test_samples_show_what_changed_since_the_step_before(site: TestClient, filled: Any) -> None:
    home, first, *_ = filled
    (home.runs / first / "samples" / f"{STEPS - 1:08d}_text.txt").write_text("counted to\nnothing")
    part = site.get(f"/parts/runs/{first}/samples?at=1&diff=1").text
    assert "<ins>counted to &lt;b&gt;the end&lt;/b&gt;</ins>" in part
    assert "<del>nothing</del>" in part
    whole = site.get(f"/runs/{first}?tab=samples&at=0").text
    assert "<span>nothing</span>" in whole


@pytest.mark.parametrize(
    ("name", "shown"),
    [("config.yaml", "steps: 40"), ("run.json", "&#34;trial.count&#34;"), ("metrics.jsonl", "time_s")],
)
def test_files_show_the_beginning_of_a_text(site: TestClient, filled: Any, name: str, shown: str) -> None:
    assert shown in site.get(f"/runs/{filled[1]}?tab=files&file={name}").text


def test_file_outside_of_the_folder_is_refused(site: TestClient, filled: Any) -> None:
    answer = site.get(f"/runs/{filled[1]}?tab=files&file=../../melete.db")
    assert answer.status_code == 404
    assert "SQLite" not in answer.text


def test_checkpoints_can_be_downloaded(site: TestClient, filled: Any) -> None:
    page = site.get(f"/runs/{filled[1]}?tab=checkpoints").text
    links = re.findall(r'download href="([^"]+)"', page)
    assert len(links) >= 2
    assert all(site.get(link).status_code == 200 for link in links)


@pytest.mark.parametrize(
    "path", ["/runs", "/compare?runs=RUN,OTHER", *(f"/runs/RUN?tab={tab}" for tab in TABS)]
)
def test_hostile_texts_are_escaped(site: TestClient, filled: Any, path: str) -> None:
    page = site.get(path.replace("RUN", filled[3]).replace("OTHER", filled[1])).text
    assert "<img src=x" not in page
    assert "document.title=`ran`</script>" not in page


def test_folder_that_is_gone_is_one_message(site: TestClient, filled: Any) -> None:
    home = filled[0]
    gone = execute("trial.count", {"steps": 2}, Options(home, name="short-lived"))
    shutil.rmtree(home.runs / gone.id)
    page = site.get(f"/runs/{gone.id}")
    assert page.status_code == 404
    assert page.text.count("is gone: it was deleted or moved away") == 1
    assert "folder gone" in site.get("/runs?search=short-lived").text


def test_compare_shows_only_what_differs(site: TestClient, filled: Any) -> None:
    _, first, second, _ = filled
    page = site.get(f"/compare?runs={first},{second}").text
    rows = re.findall(r'<th scope="row">([\w. ]+)</th>', page)
    assert {"steps", "save_every", "words", "base", "accuracy"} <= set(rows)
    assert "shape" not in rows
    everything = site.get(f"/compare?runs={first},{second}&all=1").text
    assert '<th scope="row">shape</th>' in everything


def test_compare_shows_intervals_and_counts(site: TestClient, filled: Any) -> None:
    page = site.get(f"/compare?runs={filled[1]}&runs={filled[2]}").text
    assert page.count("0.35 to 0.65, n = 40") == 2
    assert 'aria-label="from 0.35 to 0.65"' in page


def test_compare_with_a_missing_run_keeps_the_others(site: TestClient, filled: Any) -> None:
    answer = site.get(f"/compare?runs={filled[1]},20200101-000000-none-0000,{filled[2]}")
    assert answer.status_code == 200
    assert "There is no run named" in answer.text
    assert f'runs="{filled[1]},{filled[2]}"' in answer.text


@pytest.mark.parametrize("query", ["", "?runs=", "?runs=,,"])
def test_compare_without_runs_says_what_to_do(site: TestClient, query: str) -> None:
    page = site.get(f"/compare{query}")
    assert page.status_code == 200
    assert "Choose at least two runs" in page.text


def test_compare_takes_eight_runs_and_says_what_it_leaves_out(site: TestClient, filled: Any) -> None:
    home = filled[0]
    made = [execute("trial.count", {"steps": 1}, Options(home)).id for _ in range(9)]
    page = site.get(f"/compare?runs={','.join(made)}").text
    assert "9 runs were given; the first 8 are shown." in page
    assert page.count("mark-8") == 1 + page.count('class="reach mark-8"') * 2


def test_compare_shows_texts_at_equal_steps(site: TestClient, filled: Any) -> None:
    _, first, second, _ = filled
    part = site.get(f"/parts/compare/samples?runs={first},{second}&name=text&at=0").text
    assert "Nothing by this step." in part
    assert "counted to &lt;b&gt;the end" in part


def test_scores_are_found_by_their_shape() -> None:
    rate = {"name": "exact", "value": 0.5, "count": 40, "low": 0.35, "high": 0.65, "note": "names"}
    row = {"split": "test", "decoding": "free", "seed": 1, "tasks": 200, "tool_calls": 600,
           "reliability": [0.9, 0.85, 0.93], "tokens": 4_000}  # fmt: skip
    found = scores.of_result(
        {
            "exact": rate,
            "none": {**rate, "count": 0},
            "model": "a",
            "before": [row],
            "measured": [row],
            "steps": 3,
        }
    )
    assert found["exact"] == scores.Score("exact", 0.5, 40, 0.35, 0.65, "names")
    assert found["before test free reliability"].count == 600
    assert found["test free reliability"].low == 0.85
    assert found["steps"].low is None
    assert "none" not in found
    assert "before test free seed" not in found


def test_scores_before_and_after_are_told_first_and_the_rest_is_folded() -> None:
    row = {"split": "test", "decoding": "free", "seed": 1, "tasks": 200, "tool_calls": 600, "tokens": 4_000}
    change = {
        "before": 0.5,
        "after": 0.9,
        "difference": 0.4,
        "low": 0.3,
        "high": 0.5,
        "count": 200,
        "sentence": "+0.4",
    }
    told = scores.told(
        scores.of_result(
            {
                "before": [row | {"success": [0.5, 0.4, 0.6]}],
                "after": [row | {"success": [0.9, 0.8, 0.95]}],
                "difference_test": change,
                "practised_s": 9.0,
            }
        )
    )
    assert [(name, one.value, other.value) for name, one, other in told.pairs] == [
        ("test free success", 0.5, 0.9)
    ]
    assert told.first == [scores.Score("difference_test", 0.4, 200, 0.3, 0.5, "+0.4")]
    assert {"before test free", "after test free", ""} == told.groups.keys()


def test_scores_that_all_fit_have_no_fold() -> None:
    found = scores.of_result({"steps": 3, "exact": {"value": 0.5, "count": 40, "low": 0.35, "high": 0.65}})
    told = scores.told(found)
    assert [score.name for score in told.first] == ["exact", "steps"]
    assert not told.pairs
    assert not told.groups


def test_head_of_a_run_that_ended_early_tells_its_last_step() -> None:
    run = {
        "last": {"step": 82},
        "state": "succeeded",
        "started_s": 1.0,
        "ended_s": 2.0,
        "config": {"steps": 1000},
    }
    run |= {"derived": [], "limit_batches": None, "progress": None, "id": "a"}
    assert runs._head(run)["step"] == 82
    assert runs._head(run | {"last": {"step": 999}})["step"] == 1000


def test_lineage_stands_behind_what_it_was_made_of() -> None:
    names = ("dataset:a", "run:r", "checkpoint:r:3", "deployment:d")
    nodes = [{"id": name, "kind": name.split(":")[0], "name": name.partition(":")[2], "label": "", "missing": False}
             for name in names]  # fmt: skip
    edges = [{"source": a, "target": b} for a, b in itertools.pairwise(names)]
    drawn = lineage.drawing({"nodes": nodes, "edges": [*edges, {"source": names[3], "target": names[0]}]})
    assert len(drawn.boxes) == 4  # also where a circle, which no real lineage has, would never end
    plain = lineage.drawing({"nodes": nodes, "edges": edges})
    assert [box.x for box in plain.boxes] == sorted({box.x for box in plain.boxes})
    assert len(plain.paths) == 3


def test_edge_over_several_columns_passes_behind_no_node() -> None:
    names = ("a", "b", "c", "d")
    nodes = [{"id": name, "kind": "run", "name": name, "label": "", "missing": False} for name in names]
    pairs = [*itertools.pairwise(names), ("a", "c"), ("a", "d")]
    drawn = lineage.drawing({"nodes": nodes, "edges": [{"source": a, "target": b} for a, b in pairs]})
    lanes = [path for path in drawn.paths if "H" in path]
    # In the column of b one lane for both edges that lead on from a, and one in that of c.
    assert (len(drawn.paths), len(lanes)) == (7, 2)
    for path in lanes:
        end = path.partition("C")[2].partition("H")[0].split()
        x, y = int(end[-2]), int(end[-1])
        assert all(not box.y <= y <= box.y + lineage.HEIGHT for box in drawn.boxes if box.x == x)
        assert y < drawn.height


def test_flat_names_options_by_their_path() -> None:
    assert compare.flat({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_sample_of_a_step_is_the_last_one_that_is_not_later() -> None:
    told = [
        {"name": "text", "step": step, "text": str(step), "media_type": "text/plain"} for step in (10, 20, 30)
    ]
    shown = samples.texts(told, "text", None, 25, diff=False)
    assert shown is not None
    assert (shown.at, shown.sample["text"]) == (1, "20")


def test_image_has_the_text_of_its_name_as_caption(tmp_path: Path) -> None:
    told = [
        {"name": "cat", "step": 1, "text": "a cat", "media_type": "text/plain"},
        {"name": "cat", "step": 1, "text": None, "media_type": "image/png"},
    ]
    assert [one["caption"] for one in samples.images(told)] == ["a cat"]
