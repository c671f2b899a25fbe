"""Datasets, scenarios, processes and deployments in the API: what is offered here, and that no path is a name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from melete import find
from melete.api import machine, paging
from melete.api.app import create_app
from melete.api.dataset_rows import Reader
from melete.api.records import DatasetRow
from melete.api.routes.processes import defaults
from melete.datasets import registry
from melete.datasets.adding import add
from melete.runs.process import config_class
from melete.serve import deployment
from melete.settings import Settings
from runs_at_hand import rows_file


@pytest.fixture
def client(home: Settings) -> Iterator[TestClient]:
    """Asks the API over an empty home."""
    with TestClient(create_app(home), raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def numbers(home: Settings, tmp_path: Path) -> str:
    """Name of an own dataset of 300 rows."""
    return add(rows_file(tmp_path, 300), home, name="numbers", licence="CC0-1.0").name


def every(client: TestClient, path: str, **asked: Any) -> list[dict[str, Any]]:
    """All rows of a list, page after page."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = client.get(path, params={**asked, **({"cursor": cursor} if cursor else {})})
        assert page.status_code == 200, page.text
        found += page.json()["data"]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return found


def test_processes_are_all_there_is_page_after_page(client: TestClient) -> None:
    assert [one["name"] for one in every(client, "/processes", limit=3)] == find.processes()


@pytest.mark.parametrize("name", find.processes())
def test_process_has_what_a_form_needs(client: TestClient, name: str) -> None:
    found = client.get(f"/processes/{name}").json()
    config = config_class(name)
    assert set(found["options"]["properties"]) == set(config.model_fields)
    required = {key for key, field in config.model_fields.items() if field.is_required()}
    assert set(found["defaults"]) == set(config.model_fields) - required
    assert found["example"] == json.loads(json.dumps(find.process(name).EXAMPLE))
    if not required:
        assert found["defaults"] == config().model_dump(mode="json")


def test_defaults_that_the_schema_lacks_are_given() -> None:
    from pydantic import BaseModel, Field

    class Config(BaseModel):
        needed: int
        targets: list[str] = Field(default_factory=lambda: ["q", "v"])
        place: Path = Path("somewhere")

    assert "default" not in Config.model_json_schema()["properties"]["targets"]
    assert defaults(Config) == {"targets": ["q", "v"], "place": "somewhere"}


def test_unknown_process_is_404_with_the_closest(client: TestClient) -> None:
    refused = client.get("/processes/llm.pretrian")
    assert (refused.status_code, "'llm.pretrain'" in refused.text) == (404, True)


def test_own_dataset_is_listed_and_told(client: TestClient, numbers: str) -> None:
    (listed,) = [one for one in every(client, "/datasets", at_hand=True) if one["origin"] == "own"]
    assert (listed["name"], listed["kind"], listed["licence"]) == (numbers, "rows", "CC0-1.0")
    found = client.get(f"/datasets/{numbers}").json()
    assert found["splits"]
    card = client.get(f"/datasets/{numbers}/card").json()["markdown"]
    assert "CC0-1.0" in card


@pytest.mark.parametrize("search", [None, "word 19999"])
def test_jump_and_search_that_take_long_are_gone_on_with_page_by_page(
    home: Settings, tmp_path: Path, search: str | None
) -> None:
    count, reader = 20_000, Reader(longest_s=0.005)
    add(rows_file(tmp_path, count), home, name="long")
    opened = registry.open("long", home)
    split = max(opened.splits, key=opened.count)
    last = opened.count(split) - 1
    if search is not None:
        split = next(name for name in opened.splits if any(r["word"] == search for r in opened.rows(name)))
    pages: list[list[DatasetRow]] = []
    cursor: int | None = 0 if search else last
    while cursor is not None:
        page = reader.page(opened, split, cursor, "rows", 5, search)
        cursor = paging.place(page.next_cursor, "rows", int)
        pages.append(page.data)
    assert len(pages) > 1
    (row,) = (row for page in pages for row in page)
    assert row.index == last or row.row == {"number": 19_999, "word": search}


def test_rows_of_a_split_are_read_by_cursor(client: TestClient, numbers: str) -> None:
    found = every(client, f"/datasets/{numbers}/rows", limit=70)
    assert [row["index"] for row in found] == list(range(len(found)))
    splits = client.get(f"/datasets/{numbers}").json()["splits"]
    others = [every(client, f"/datasets/{numbers}/rows", split=split, limit=200) for split in splits[1:]]
    seen = [row["row"]["number"] for rows in (found, *others) for row in rows]
    assert sorted(seen) == list(range(300))
    assert client.get(f"/datasets/{numbers}/rows", params={"start": 100, "limit": 1}).json()["data"] == [
        found[100]
    ]


def test_rows_are_searched(client: TestClient, numbers: str) -> None:
    found = every(client, f"/datasets/{numbers}/rows", search="WORD 12")
    everything = every(client, f"/datasets/{numbers}/rows", limit=200)
    assert found == [row for row in everything if "word 12" in row["row"]["word"]]
    assert found


def test_text_of_the_standard_library_is_read_here(client: TestClient) -> None:
    page = client.get("/datasets/stdlib/rows", params={"limit": 2}).json()
    assert [row["row"] for row in page["data"]] == [None, None]
    assert all(row["text"] for row in page["data"])


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/datasets/no_such_set", 404, "There is no dataset"),
        ("/datasets/..%2F..%2Fetc", 404, "/api/v1"),
        ("/datasets/.%2Fnotes.txt/rows", 404, "/api/v1"),
        ("/datasets/stdlib@0/rows", 400, "no version"),
        ("/datasets/stdlib/rows?split=no", 400, "no split"),
        ("/datasets/stdlib/rows?start=-1", 400, "start"),
        ("/datasets/~root", 400, "name"),
        ("/scenarios/os", 404, "customer_support"),
        ("/scenarios/customer_support/tasks?split=no", 400, "held_out"),
        ("/deployments/..%2Fruns", 404, "/api/v1"),
        ("/deployments/no", 404, "There is no deployed agent"),
        ("/checkpoints/no:1", 404, "There is no run"),
    ],
)
def test_name_that_is_none_is_refused(client: TestClient, path: str, status: int, says: str) -> None:
    refused = client.get(path)
    assert refused.status_code == status
    assert says in refused.json()["error"]["message"]


def test_dataset_that_is_a_path_of_the_server_is_not_opened(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_file(tmp_path, 5).rename(tmp_path / "hidden")
    monkeypatch.chdir(tmp_path)
    assert client.get("/datasets/hidden/rows").status_code == 404


def test_tasks_of_a_scenario_go_on_by_cursor(client: TestClient) -> None:
    path = "/scenarios/customer_support/tasks"
    first = client.get(path, params={"limit": 3}).json()
    second = client.get(path, params={"limit": 3, "cursor": first["next_cursor"]}).json()
    whole = client.get(path, params={"limit": 6}).json()["data"]
    assert first["data"] + second["data"] == whole
    assert len({task["id"] for task in whole}) == 6


def test_scenario_is_told_with_tools_and_criteria(client: TestClient) -> None:
    found = client.get("/scenarios/customer_support").json()
    assert found["unavailable"] is None
    assert {"function"} <= set(found["tools"][0])
    assert found["criteria"]


def test_scenario_whose_file_is_broken_is_one_message(client: TestClient, home: Settings) -> None:
    file = home.home / "scenarios" / "broken_one.py"
    file.parent.mkdir(parents=True)
    file.write_text('"""A scenario that is none."""\nraise OSError("no")\n')
    assert {"name": "broken_one", "description": "A scenario that is none.", "own": True} in every(
        client, "/scenarios"
    )
    refused = client.get("/scenarios/broken_one")
    assert (refused.status_code, "broken_one" in refused.text) == (400, True), refused.text


def test_deployed_versions_are_told_with_the_one_in_use(client: TestClient, home: Settings) -> None:
    guard = {"name": "open", "version": "1", "rules": []}
    for version in ("1.0", "1.1"):
        deployment.write(home, deployment.Deployment("desk", version, "echo", "", "Be kind.", (), guard))
        deployment.activate(home, "desk", version)
    deployment.roll_back(home, "desk")
    (found,) = every(client, "/deployments")
    assert found == {"name": "desk", "version": "1.0", "previous": None, "versions": ["1.0", "1.1"]}
    told = client.get("/deployments/desk/versions/1.1").json()
    assert (told["active"], told["intact"], told["system_prompt"]) == (False, True, "Be kind.")
    refused = client.get("/deployments/desk/versions/2.0")
    assert (refused.status_code, "1.1" in refused.text) == (404, True)


def test_gpus_are_read_from_the_table_of_the_driver() -> None:
    table = "0, NVIDIA H200, 570.1, 143771, 512, 7\n1, NVIDIA H200, 570.1, 143771, [N/A], [N/A]\nno table\n"
    first, second = machine.parsed(table)
    assert (first.index, first.name, first.memory_used_bytes >> 20, first.busy_percent) == (
        0,
        "NVIDIA H200",
        512,
        7,
    )
    assert (second.memory_used_bytes, second.busy_percent) == (0, None)
