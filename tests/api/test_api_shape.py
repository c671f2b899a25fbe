"""What holds for every resource of the API: it is a file, is documented, refuses nonsense in the house's shape."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from lab_at_hand import fill
from melete import find
from melete.api.app import PREFIX, ROUTES, create_app
from melete.serve.server import Server
from melete.settings import Settings
from melete.store import database, tokens
from practice_at_hand import fill_practice
from runs_at_hand import fill_queue, fill_runs

JUDGED = positive_data_acceptance
"""The one check that is left out: a cursor of other filters is well-formed and refused all the same."""
RESOURCES = [name.replace("_", "-") for name in find.names(ROUTES)]
LISTS = [name for name in RESOURCES if name not in ("comparisons", "gateway", "status")]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a home that holds the lab."""
    home = tmp_path_factory.mktemp("home")
    made = Settings.of(home)
    with database.connect(made.database) as connection:
        fill(connection)
        tokens.make(connection, "shape", "read", by="tests", now_s=time.time())
        tokens.write_down(connection, "token", "shape", time.time())
    fill_runs(made)
    fill_queue(made)
    fill_practice(made, tasks=1)
    return made


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    """Asks the API over the lab."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as made:
        yield made


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    """The OpenAPI document."""
    return dict(client.get("/openapi.json").json())


def test_resources_are_the_files_of_routes_each_with_a_sentence(client: TestClient) -> None:
    listed = client.get("/").json()
    assert [entry["name"] for entry in listed] == RESOURCES
    assert all(entry["description"].endswith(".") for entry in listed)


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTS)
def test_resource_lists_rows_that_its_schema_describes(
    client: TestClient, document: dict[str, Any], name: str
) -> None:
    import jsonschema

    page = client.get(f"/{name}").json()
    answer = document["paths"][f"/{name}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(page, {**answer, "components": document["components"]})
    assert page["object"] == "list"
    assert page["data"], f"the lab has no {name}"


def test_document_names_the_errors_and_no_422(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            assert "422" not in responses
            assert path == "/" or {"400", "404", "503"} <= set(responses)
            assert set(responses) & {"200", "201", "202", "204"}


def test_operations_have_short_names_of_their_own_for_generated_clients(document: dict[str, Any]) -> None:
    names = [
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
    ]
    assert len(set(names)) == len(names)
    assert {"list_sessions", "get_session", "list_task_cards", "compare_variants"} <= set(names)


@pytest.mark.parametrize("name", LISTS)
def test_record_of_every_list_shows_an_example(document: dict[str, Any], name: str) -> None:
    answer = document["paths"][f"/{name}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    schemas = document["components"]["schemas"]
    page = schemas[answer["$ref"].rsplit("/", 1)[1]]
    record = schemas[page["properties"]["data"]["items"]["$ref"].rsplit("/", 1)[1]]
    assert any("examples" in field for field in record["properties"].values())


def shows_an_example(schema: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """Whether a schema, or one that it is made of, has an example or can only be a few values."""
    if "$ref" in schema:
        return shows_an_example(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas)
    if {"examples", "example", "enum", "const"} & set(schema) or schema.get("type") == "boolean":
        return True
    parts = [*schema.get("anyOf", ()), *schema.get("properties", {}).values()]
    return any(shows_an_example(part, schemas) for part in [*parts, *filter(None, [schema.get("items")])])


def test_every_parameter_and_body_shows_an_example_or_its_default(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    without = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            asked = {one["name"]: one["schema"] for one in operation.get("parameters", ())}
            if "requestBody" in operation:
                asked["body"] = operation["requestBody"]["content"]["application/json"]["schema"]
            for name, schema in asked.items():
                if schema.get("default") is None and not shows_an_example(schema, schemas):
                    without.append(f"{method} {path}: {name}")
    assert without == []


@pytest.mark.parametrize("name", RESOURCES)
def test_unknown_parameter_of_any_list_is_400(client: TestClient, name: str) -> None:
    refused = client.get(f"/{name}", params={"sort": "up"})
    if name == "metrics":
        assert refused.status_code == 200  # it takes no parameters, and FastAPI looks at none
    else:
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "unknown_parameter"


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/requests?statu=ok", 400, "Did you mean 'status'?"),
        ("/requests?status=fine", 400, "'ok'"),
        ("/requests?limit=0", 400, "limit"),
        ("/requests?limit=201", 400, "200"),
        ("/requests?since_s=inf", 400, "since_s"),
        ("/requests?model=a%00b", 400, "model"),
        ("/requests?cursor=%27%3B--", 400, "cursor"),
        ("/sessions/s-unknown", 404, "There is no session named 's-unknown'"),
        ("/sessions/..%2F..%2Fetc%2Fpasswd", 404, "/api/v1"),
        ("/variants/plain@000000000000", 404, "Known: "),
        ("/metrics/no-such", 404, "cost_per_solved"),
        ("/comparisons", 400, "needs two variants or an experiment"),
        ("/comparisons?before=plain&after=plain", 400, "same variant"),
        ("/comparisons?before=plain&after=unknown", 404, "careful"),
        ("/nothing", 404, "/api/v1"),
    ],
)
def test_nonsense_is_refused_in_the_shape_of_the_house(
    client: TestClient, path: str, status: int, says: str
) -> None:
    refused = client.get(path)
    assert refused.status_code == status
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
    assert says in refused.json()["error"]["message"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_writing_is_405(client: TestClient, method: str) -> None:
    refused = client.request(method, "/sessions")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")


def test_answer_that_the_client_has_is_304_until_it_changes(client: TestClient) -> None:
    first = client.get("/variants")
    tag = first.headers["etag"]
    again = client.get("/variants", headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/variants?limit=1", headers={"If-None-Match": tag}).status_code == 200


def test_database_that_is_away_is_503_and_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "place" / "melete.db"
    file.parent.mkdir()
    away = Settings(home=tmp_path, data=None, database=f"sqlite:///{file}")
    file.write_text("this is not a database " * 100)
    with TestClient(create_app(away), raise_server_exceptions=False) as client:
        refused = client.get("/sessions")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        file.unlink()
        assert client.get("/sessions").json()["data"] == []


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("wrong", 401), ("s3cret", 200)])
def test_served_api_asks_for_the_token(settings: Settings, token: str | None, status: int) -> None:
    guarded = replace(settings, token="s3cret")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with Server({}, guarded, mounts={PREFIX: create_app(guarded)}) as server:
        assert httpx.get(f"{server.url}{PREFIX}/sessions", headers=headers).status_code == status


def test_served_api_refuses_pages_of_other_sites(to_write: Settings) -> None:
    with Server({}, to_write, mounts={PREFIX: create_app(to_write)}) as server:
        foreign = httpx.get(f"{server.url}{PREFIX}/runs", headers={"Origin": "http://evil.example"})
        assert foreign.status_code == 403
        assert httpx.get(f"{server.url}{PREFIX}/runs").json()["data"]


def answered(case: Any) -> None:
    """Asks what was generated, and checks the answer against the document."""
    case.call_and_validate(excluded_checks=[JUDGED], timeout=10)  # seconds


def generated(settings: Settings, methods: set[str], examples: int) -> tuple[list[str], list[str]]:
    """Asks every operation with these methods; returns those that were tried, and what failed."""
    app = Starlette(routes=[Mount(PREFIX, app=create_app(settings))])
    schema = schemathesis.openapi.from_asgi(f"{PREFIX}/openapi.json", app)
    few = limits(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    tried, failures = [], []
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.method not in methods:
            continue
        tried.append(operation.label)
        ask = few(given(case=operation.as_strategy())(answered))
        try:
            ask()
        except Exception as error:  # every operation is tried, and all that failed are shown
            inner = "; ".join(map(str, getattr(error, "exceptions", ())))
            failures.append(f"{operation.label}: {error} {inner}")
    return tried, failures


@pytest.fixture(scope="module")
def to_write(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home that may be written to."""
    home = tmp_path_factory.mktemp("written")
    made = Settings.of(home)
    fill_runs(made)
    fill_queue(made)
    return made


WRITES = {"post", "put", "patch", "delete"}


@pytest.mark.slow
def test_all_writes_hold_against_generated_requests(to_write: Settings) -> None:
    tried, failures = generated(to_write, WRITES, 40)
    assert failures == []
    assert len(tried) > 15


@pytest.mark.slow
def test_reads_hold_against_generated_requests(settings: Settings) -> None:
    tried, failures = generated(settings, {"get"}, 30)
    assert failures == []
    assert len(tried) > 50
