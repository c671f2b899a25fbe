"""The documentation of the API and of the metrics says what is there, and its Python runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from lab_at_hand import lab_file  # noqa: F401
from melete.api.app import PREFIX, create_app
from melete.gateway import exporter
from melete.serve.server import Server
from melete.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
API = (DOCS / "api.md").read_text(encoding="utf-8")
METRICS = (DOCS / "bench" / "dashboards.md").read_text(encoding="utf-8")


@pytest.fixture
def lab(home: Settings, lab_file: Path) -> Settings:  # noqa: F811
    """A home with the lab in it."""
    home.home.mkdir(parents=True)
    shutil.copy(lab_file, home.home / "melete.db")
    return home


def test_paths_of_the_documentation_are_those_of_the_api(home: Settings) -> None:
    table = API[API.index("| | |") : API.index("`GET` reads and never writes")]
    said = {path.removeprefix(PREFIX) or "/" for path in re.findall(r"`(?:GET |POST )?(/[\w/{}.-]*)`", table)}
    document = TestClient(create_app(home)).get("/openapi.json").json()
    lists = {path for path in document["paths"] if "{" not in path}
    assert lists <= said | {"/"}
    assert said - {"/openapi.json"} <= {re.sub(r"\{\w+\}", "{id}", path) for path in document["paths"]}


def test_python_of_the_documentation_runs(lab: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    code = "".join(re.findall(r"```python\n(.*?)```", API, re.S))
    with Server({}, lab, mounts={PREFIX: create_app(lab)}) as server:
        exec(code.replace("http://127.0.0.1:8675", server.url), {})
    assert len(capsys.readouterr().out.splitlines()) == 1 + 1 + 30


def test_metrics_of_the_documentation_are_those_of_the_page(lab: Settings) -> None:
    import httpx

    table = METRICS[METRICS.index("| name | labels | |") : METRICS.index("The last two carry")]
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, re.M))
    with exporter.serve(lab, 0) as page:
        families = list(text_string_to_metric_families(httpx.get(page.url).text))
    shown = {
        f"{family.name}_total" if family.type == "counter" else family.name: family for family in families
    }
    assert set(rows) == set(shown)
    for name, labels in rows.items():
        if labels.strip() not in ("", "the same"):
            found = {label for sample in shown[name].samples for label in sample.labels} - {"le"}
            assert found <= set(labels.strip().split(", ")), name
