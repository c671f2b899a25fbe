"""The report: one file that opens offline, says what happened, and trusts no text that a model wrote."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from melete.errors import TrainingError
from melete.jobs.execute import Options, execute
from melete.runs import folder, report
from melete.settings import Settings

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Checks that tags are balanced, and collects what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]
        self.ids += [value or "" for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture
def run(home: Settings) -> Path:
    record = execute("trial.count", {"steps": 150, "save_every": 50}, Options(home, name="tiny"))
    return home.runs / record.id


def test_report_is_whole_html_that_loads_nothing_from_elsewhere(run: Path) -> None:
    page = parse(run / "report.html")
    assert [link for link in page.links if re.match(r"[a-z]+:|//", link)] == []
    assert all((run / link).exists() for link in page.links if not link.startswith("#"))


def test_report_escapes_what_a_model_wrote(run: Path) -> None:
    text = (run / "report.html").read_text()
    assert "counted to &lt;b&gt;the end&lt;/b&gt;" in text
    assert "<b>the end</b>" not in text


def test_report_shows_score_with_interval_and_count(run: Path) -> None:
    text = re.sub(r"\s+", " ", (run / "report.html").read_text())
    assert (
        '<td class="number"><b>0.500</b></td> <td class="number">0.350 – 0.650</td> <td class="number">40</td>'
        in text
    )


def test_report_shows_curves_time_derived_values_and_provenance(run: Path) -> None:
    text = (run / "report.html").read_text()
    for part in ("<polyline", "Where the time went", "steps times rate", "seed", "packages", "step_00000150"):
        assert part in text


def test_report_of_a_failed_run_says_why(home: Settings) -> None:
    with pytest.raises(TrainingError):
        execute("trial.count", {"fail_at": 1}, Options(home))
    path = home.runs / folder.ids(home.runs)[0]
    parse(path / "report.html")
    assert "The loss became nan at step 1" in (path / "report.html").read_text()


def test_report_of_a_run_that_only_has_its_record_is_written(home: Settings) -> None:
    path, _ = folder.create(home, "trial.count")
    page = report.write(path)
    parse(page)
    assert path.name in page.read_text()


def test_results_finds_scores_at_any_depth() -> None:
    score = {"name": "mmlu", "value": 0.3, "count": 10}
    scores, facts = report._results(
        {"suite": {"all": [score, score]}, "arc": {**score, "name": ""}, "tokens": 12_345}
    )
    assert [found["name"] for found in scores] == ["mmlu", "mmlu", "arc"]
    assert facts == [("tokens", "12,345")]
