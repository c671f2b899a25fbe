"""Reports and exports: one set of numbers in every format, nothing secret in any, pages that load nothing."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import stored_sessions
from sqlalchemy import select
from stored_sessions import START_S, play, variant

from melete.bench import exports, report, rollups
from melete.bench.artifacts import ARTIFACTS
from melete.errors import StorageError, UnknownNameError
from melete.gateway import entities
from melete.settings import Settings
from melete.store.database import connect

CALL = Callable[..., tuple[int, str, str]]
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Checks that tags are balanced, and collects what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A database with an experiment, and its report as text; made once."""
    path = tmp_path_factory.mktemp("report") / "played.db"
    with connect(f"sqlite:///{path}") as connection:
        stored_sessions.experiment(connection, cards=6, attempts=2)
        return path, report.to_text(report.of_experiment(connection, "support"))


@pytest.fixture
def made(home: Settings, template: tuple[Path, str]) -> dict[str, Any]:
    """The report of an experiment that stands in the database of `home`."""
    home.home.mkdir(parents=True, exist_ok=True)
    shutil.copy(template[0], home.home / "melete.db")
    loaded: dict[str, Any] = json.loads(template[1])
    return loaded


def rendered(name: str, made: dict[str, Any], folder: Path) -> bytes:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    return exports.write(name, made, folder / f"report{exports.suffix(name)}").read_bytes()


def test_report_of_an_experiment_puts_the_baseline_first_and_compares_the_others(
    made: dict[str, Any],
) -> None:
    assert [one["name"] for one in made["variants"]] == ["before", "after"]
    assert made["baseline"] == made["comparisons"][0]["before"] == made["variants"][0]["id"]
    assert len(made["tasks"]) == 6
    assert made["tasks"][0]["variants"][made["baseline"]]["attempts"] == 2


def test_report_says_where_its_numbers_come_from(made: dict[str, Any]) -> None:
    origin = made["provenance"]
    assert origin["versions"] == {"litellm": ["1.2"], "melete": ["0.3"]}
    assert origin["noted"]["host"] == {"bench-host": 24}
    assert origin["load_1m"] == {"low": 0.5, "median": 0.5, "high": 0.5}
    assert origin["price_sources"] == {
        "config": made["variants"][0]["requests"] + made["variants"][1]["requests"]
    }
    assert origin["variants"][made["baseline"]]["model"] == ["small"]
    assert origin["first_started"] == "2026-09-21 14:13:20 UTC"


def test_report_counts_errors_estimates_and_models_that_answered(home: Settings) -> None:
    with connect(home.database) as connection:
        id = entities.record(connection, "experiment", "alone", {"name": "alone", "variants": ["one"]})
        requests = [
            {"tokens_estimated": True, "model_answered": "small-2"},
            {"status": "error", "error_class": "rate_limit", "cost_usd": None, "cost_source": "none"},
            {"changed": ["fallbacks", "num_retries"]},
            {},
        ]
        play(connection, variant(connection, "one"), "card", experiment=id, requests=requests)
        (one,) = report.of_experiment(connection, "alone")["variants"]
    assert (one["errors"], one["statuses"]) == ({"rate_limit": 1}, {"ok": 3, "error": 1})
    assert (one["estimated_share"], one["priced_share"]) == (0.25, 0.75)
    assert one["words"]["model_answered"] == {"small": 3, "small-2": 1}
    assert one["words"]["changed"] == {"fallbacks": 1, "num_retries": 1}


def test_report_of_a_changed_experiment_counts_the_sessions_of_all_its_versions(home: Settings) -> None:
    with connect(home.database) as connection:
        own = variant(connection, "one")
        for number, attempts in enumerate((1, 2)):
            document = {"name": "grown", "variants": ["one"], "attempts": attempts}
            id = entities.record(connection, "experiment", "grown", document)
            play(connection, own, f"card/{number}", experiment=id, created_s=START_S + number)
        made = report.of_experiment(connection, "grown")
        first = report.of_experiment(connection, made["experiment"]["versions"][0])
    assert made["variants"][0]["measured"] == 2
    assert made["experiment"]["document"]["attempts"] == 2
    assert first["variants"][0]["measured"] == 1


def test_report_of_an_experiment_without_a_common_card_says_so(home: Settings) -> None:
    with connect(home.database) as connection:
        id = entities.record(connection, "experiment", "apart", {"name": "apart", "variants": ["one", "two"]})
        play(connection, variant(connection, "one"), "card/1", experiment=id)
        play(connection, variant(connection, "two"), "card/2", experiment=id)
        made = report.of_experiment(connection, "apart")
    assert made["comparisons"] == []
    assert "no finalised task card in common" in made["notes"][0]


def test_report_of_an_experiment_whose_baseline_was_not_played_says_so(home: Settings) -> None:
    with connect(home.database) as connection:
        document = {"name": "half", "variants": ["one", "two"], "baseline": "one"}
        id = entities.record(connection, "experiment", "half", document)
        two = variant(connection, "two")
        play(connection, two, "card", experiment=id)
        made = report.of_experiment(connection, "half")
    assert made["baseline"] == two
    assert made["notes"] == [f"The baseline one has no session; the others are compared with {two}."]


def test_report_of_an_unknown_experiment_names_the_known_ones(home: Settings, made: dict[str, Any]) -> None:
    with (
        connect(home.database) as connection,
        pytest.raises(UnknownNameError, match="Did you mean 'support'"),
    ):
        report.of_experiment(connection, "suport")


def test_report_made_twice_is_the_same_text(home: Settings, made: dict[str, Any]) -> None:
    with connect(home.database) as connection:
        again = report.of_experiment(connection, "support")
    assert report.to_text(again) == report.to_text(made)


@pytest.mark.parametrize("name", exports.names())
def test_export_holds_no_note_path_client_or_prompt(made: dict[str, Any], tmp_path: Path, name: str) -> None:
    data = rendered(name, made, tmp_path)
    assert b"SECRET" not in data
    assert b"Do support/" not in data


@pytest.mark.parametrize("name", exports.names())
def test_export_of_the_same_report_is_the_same_bytes(made: dict[str, Any], tmp_path: Path, name: str) -> None:
    assert rendered(name, made, tmp_path) == rendered(name, made, tmp_path)


def test_json_holds_the_whole_report(made: dict[str, Any], tmp_path: Path) -> None:
    assert json.loads(rendered("json", made, tmp_path)) == made


def test_csv_has_a_row_for_each_figure_and_each_difference(made: dict[str, Any], tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(rendered("csv", made, tmp_path).decode())))
    figures = sum(len(found) for one in made["variants"] for found in one["figures"].values())
    assert len(rows) == figures + len(made["comparisons"][0]["differences"])
    found = next(row for row in rows if row["metric"] == "latency" and row["figure"] == "p50")
    assert float(found["value"]) == made["variants"][0]["figures"]["latency"]["p50"]["value"]


def test_csv_runs_no_formula_of_a_variant_name(made: dict[str, Any], tmp_path: Path) -> None:
    made["variants"][0]["id"] = '=HYPERLINK("http://x")'
    text = rendered("csv", made, tmp_path).decode()
    assert "'=HYPERLINK" in text
    assert not re.search(r'(^|,)"?=', text, re.MULTILINE)


def test_parquet_holds_the_rows_and_the_report(made: dict[str, Any], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(io.BytesIO(rendered("parquet", made, tmp_path)))
    rows = list(csv.DictReader(io.StringIO(rendered("csv", made, tmp_path).decode())))
    assert table.num_rows == len(rows)
    assert json.loads(table.schema.metadata[b"melete_report"]) == made
    assert table.column("value").to_pylist()[0] == float(rows[0]["value"])


def test_markdown_escapes_names_and_holds_the_sentences(made: dict[str, Any], tmp_path: Path) -> None:
    made["title"] = "a|b <script>"
    text = rendered("markdown", made, tmp_path).decode()
    assert text.startswith("# a\\|b \\<script\\>")
    assert "- success: " in text
    rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("| success |")]
    assert [row.count("|") for row in rows] == [7, 4]


def test_html_is_whole_loads_nothing_and_escapes_names(made: dict[str, Any], tmp_path: Path) -> None:
    made["title"] = "<script>alert(1)</script>"
    page = Page()
    text = rendered("html", made, tmp_path).decode()
    page.feed(text)
    assert page.open == []
    assert page.links == []
    assert "<script>alert" not in text
    assert text.count("<polyline") >= 4


def test_html_of_an_experiment_in_which_nothing_finished_is_written(home: Settings, tmp_path: Path) -> None:
    from melete.records import SessionState

    with connect(home.database) as connection:
        id = entities.record(connection, "experiment", "empty", {"name": "empty", "variants": ["one"]})
        play(connection, variant(connection, "one"), "card", experiment=id, state=SessionState.ABORTED)
        made = report.of_experiment(connection, "empty")
    for name in ("html", "markdown", "csv", "json"):
        assert rendered(name, made, tmp_path)
    assert "1 aborted" in made["notes"][0]


def test_export_to_a_full_or_missing_place_leaves_nothing(made: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="was not written"):
        exports.write("json", made, tmp_path / "file" / "report.json")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]


def test_report_command_writes_every_format_asked_for(home: Settings, call: CALL, tmp_path: Path) -> None:
    with connect(home.database) as connection:
        stored_sessions.experiment(connection, cards=2)
    code, out, _ = call(
        "bench", "report", "support", "--format", "json", "--format", "html", "--out", str(tmp_path)
    )
    assert code == 0
    assert sorted(path.name for path in tmp_path.glob("support.*")) == ["support.html", "support.json"]
    assert out.count("Wrote") == 2
    assert call("bench", "report", "support", "--format", "csv", "--out", str(tmp_path / "mine.csv"))[0] == 0
    with connect(home.database) as connection:
        kept = {row.kind: row for row in connection.execute(select(ARTIFACTS))}
    assert kept.keys() == {"report.json", "report.html", "report.csv"}
    written = (tmp_path / "mine.csv").read_bytes()
    assert kept["report.csv"].path == str(tmp_path / "mine.csv")
    assert kept["report.csv"].sha256 == hashlib.sha256(written).hexdigest()
    assert kept["report.csv"].bytes == len(written)


def test_report_command_prints_tables(home: Settings, call: CALL) -> None:
    with connect(home.database) as connection:
        stored_sessions.experiment(connection, cards=2)
    code, out, _ = call("bench", "report", "support")
    assert code == 0
    assert re.search(r"^before +2 +\d of 2", out, re.MULTILINE)
    assert re.search(r"^latency p95 +", out, re.MULTILINE)
    assert "after against before on 2 task cards" in out


def test_metric_of_the_documentation_is_one(home: Settings) -> None:
    text = (Path(__file__).parents[2] / "docs" / "bench" / "reports.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code, scope)
    with connect(home.database) as connection:
        id = play(
            connection, variant(connection, "one"), "card", requests=[{"tool_calls": 2}, {"tool_calls": 1}]
        )
        found = rollups.load(connection, rollups.SESSIONS.c.id == id)
    assert scope["METRIC"].values(found) == {"": (3.0, 1)}


def test_report_does_not_depend_on_the_order_of_rows(home: Settings, tmp_path: Path) -> None:
    texts = []
    for turn in (1, -1):
        with connect(f"sqlite:///{tmp_path}/{turn}.db") as connection:
            own = [variant(connection, name) for name in ("one", "two")]
            id = entities.record(connection, "experiment", "e", {"name": "e", "variants": ["one", "two"]})
            cells = [(side, card) for side in (0, 1) for card in range(4)][::turn]
            for side, card in cells:
                requests = [{"latency_ms": 100.0 * (card + side), "started_s": START_S + n} for n in (0, 1)][
                    ::turn
                ]
                play(
                    connection,
                    own[side],
                    f"c/{card}",
                    experiment=id,
                    requests=requests,
                    created_s=START_S + card,
                )
            texts.append(report.to_text(report.of_experiment(connection, "e")))
    assert texts[0] == texts[1]


@pytest.mark.browser
def test_html_in_a_browser_reads_under_the_pointer_fits_a_phone_and_asks_nobody(
    made: dict[str, Any], tmp_path: Path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    path = exports.write("html", made, tmp_path / "report.html")
    asked: list[str] = []
    failed: list[str] = []
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(path.as_uri())
        chart = page.get_by_role("img", name="latency: share of requests below each value")
        chart.hover()
        assert "% below" in (chart.locator(".hover text").text_content() or "")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        browser.close()
    assert failed == []
    assert asked == [path.as_uri()]
