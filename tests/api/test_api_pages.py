"""Pages of the API: every row once, in order, by every filter; cursors that are checked; the same on both databases."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from lab_at_hand import BEGUN_S, lab, lab_file  # noqa: F401
from melete.api.app import create_app
from melete.bench import report
from melete.gateway import listings, queries
from melete.settings import Settings
from melete.store import database
from postgres_at_hand import postgres, store  # noqa: F401


@pytest.fixture
def client(lab: Settings) -> Iterator[TestClient]:  # noqa: F811
    """Asks the API over the lab."""
    app = create_app(lab)
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made
    app.state.store.close()


def every(client: TestClient, path: str, limit: int = 7, **filters: Any) -> list[dict[str, Any]]:
    """All rows of a list, page after page."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        asked = {"limit": limit, **filters, **({"cursor": cursor} if cursor else {})}
        page = client.get(path, params=asked)
        assert page.status_code == 200, page.text
        found += page.json()["data"]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize(
    ("path", "count"), [("/requests", 61), ("/sessions", 12), ("/rollups", 12), ("/variants", 2)]
)
def test_pages_of_a_list_hold_every_row_once_in_order(client: TestClient, path: str, count: int) -> None:
    pieces, whole = every(client, path), client.get(path, params={"limit": 200}).json()["data"]
    assert len(pieces) == count
    assert pieces == whole


def test_requests_are_newest_first(client: TestClient) -> None:
    times = [row["started_s"] for row in every(client, "/requests")]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"variant": "plain"}, 30),
        ({"experiment": "trial"}, 60),
        ({"status": "error"}, 12),
        ({"status": "refused"}, 1),
        ({"variant": "careful", "error_class": "rate_limit"}, 6),
        ({"model": "small", "status": "ok"}, 48),
        ({"until_s": BEGUN_S + 50}, 6),
        ({"since_s": BEGUN_S + 50, "until_s": BEGUN_S + 100}, 5),
        ({"variant": "no such variant"}, 0),
        ({"stream": True, "endpoint": "chat", "provider": "openai"}, 60),
    ],
)
def test_requests_by_filter_are_the_rows_it_means(
    client: TestClient, filters: dict[str, Any], count: int
) -> None:
    found = every(client, "/requests", **filters)
    assert len(found) == count
    assert len({row["id"] for row in found}) == count


def test_sessions_by_variant_and_outcome_are_found_by_name_and_by_id(client: TestClient) -> None:
    named = every(client, "/sessions", variant="plain", solved=True)
    assert len(named) == 3
    assert named == every(client, "/sessions", variant=named[0]["variant"], solved=True)


def test_request_and_its_events_are_found_by_id(client: TestClient) -> None:
    row = client.get("/requests", params={"variant": "plain", "limit": 1}).json()["data"][0]
    assert client.get(f"/requests/{row['id']}").json() == row
    events = client.get(f"/requests/{row['id']}/events").json()["data"]
    assert [event["kind"] for event in events] == ["begin", "end"]
    assert events[0]["fields"] == {"stream": True}


def test_entity_is_found_by_the_id_that_a_session_names(client: TestClient) -> None:
    session = client.get("/sessions", params={"limit": 1}).json()["data"][0]
    for kind in ("variant", "experiment", "task_card", "harness_profile", "provider"):
        found = client.get(f"/{kind.replace('_', '-')}s/{session[kind]}").json()
        assert found["id"] == session[kind]
        assert found["name"] == session[kind].split("@")[0]


def test_comparison_is_the_one_of_the_command_line(client: TestClient, lab: Settings) -> None:  # noqa: F811
    found = client.get("/comparisons", params={"before": "plain", "after": "careful"}).json()
    (comparison,) = found["comparisons"]
    assert (comparison["task_cards"], comparison["pairs"]) == (3, 6)
    assert {row["metric"] for row in comparison["differences"]} >= {"success", "cost", "latency"}
    with database.connect(lab.database) as connection:
        assert found == report.of_variants(connection, "plain", "careful")


@pytest.mark.parametrize(
    "cursor",
    ["x", "AAAA", "Wzk5XQ", "W" * 1_999, base64.urlsafe_b64encode(b'["a", 1, 2, 3]').decode().rstrip("=")],
)
def test_cursor_that_is_none_of_ours_is_refused(client: TestClient, cursor: str) -> None:
    refused = client.get("/requests", params={"cursor": cursor})
    assert refused.status_code == 400
    assert "cursor" in refused.json()["error"]["message"]


def test_cursor_with_other_filters_is_refused(client: TestClient) -> None:
    cursor = client.get("/requests", params={"limit": 1, "status": "ok"}).json()["next_cursor"]
    refused = client.get("/requests", params={"status": "error", "cursor": cursor})
    assert refused.json()["error"]["code"] == "invalid_value"
    assert "keep the filters" in refused.json()["error"]["message"]


@pytest.mark.parametrize("part", ["NaN", '"a\\u0000b"', "null", "true", "1e999", "[]", '"a"', '{"a": 1}'])
def test_cursor_with_a_key_that_no_row_has_is_refused(client: TestClient, part: str) -> None:
    digest = json.loads(decoded(client.get("/requests", params={"limit": 1}).json()["next_cursor"]))[0]
    forged = base64.urlsafe_b64encode(f'["{digest}", {part}, "x"]'.encode()).decode().rstrip("=")
    assert client.get("/requests", params={"cursor": forged}).status_code == 400


def decoded(cursor: str) -> bytes:
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))


def test_page_that_may_look_through_few_rows_goes_on_until_the_end(lab: Settings) -> None:  # noqa: F811
    from dataclasses import replace

    few = replace(listings.REQUESTS, most_scanned=4)
    found, cursor, pages = [], None, 0
    with database.connect(lab.database) as connection:
        while cursor is not None or pages == 0:
            page = queries.page(
                connection, few, {"status": "error", "variant": "plain"}, limit=5, cursor=cursor
            )
            found += page.items
            cursor, pages = page.next_cursor, pages + 1
    assert len({row["id"] for row in found}) == 6
    assert pages > 6


def test_rollups_show_figures_and_no_packed_requests(client: TestClient) -> None:
    client.get("/comparisons", params={"experiment": "trial"})  # packs the requests of each session
    shown = every(client, "/rollups", scope="session")
    assert {row["metric"] for row in shown} >= {"cost", "requests", "latency.p95"}
    assert not [row for row in shown if row["metric"].startswith("columns") or row["value"] is None]


def test_store_that_routes_read_cannot_be_written(lab: Settings) -> None:  # noqa: F811
    import sqlalchemy

    from melete.api.store import Store
    from melete.errors import StorageError

    reading = Store(lab)
    with pytest.raises(StorageError), reading.read() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM request"))
    reading.close()
