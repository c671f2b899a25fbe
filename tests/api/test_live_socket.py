"""The WebSocket on a real server: many clients, some of them hostile, some asleep, and runs that change under them."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from live_at_hand import LONGEST_S, Curve, Watcher, add_lines, add_points, empty_run, served
from melete.api.alone import gated
from melete.api.live import socket as live_socket
from melete.api.live.hub import MOST_TOPICS, SIGN_IN, TRY_AGAIN, Hub
from melete.api.store import Store
from melete.records import RunState
from melete.runs import folder
from melete.settings import Settings
from melete.store import index


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose runs the tests make."""
    return Settings.of(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="module")
def url(lab: Settings) -> Iterator[str]:
    """A server over it, behind its gate."""
    with served(gated(lab), lab) as found:
        yield found


@pytest.fixture
def run(lab: Settings) -> Path:
    """A run of its own for each test."""
    path = empty_run(lab)
    add_points(path, 0, 5)
    add_lines(path, 0, 3)
    return path


def metrics_of(run: Path) -> str:
    """The topic of its loss."""
    return f"/api/v1/runs/{run.name}/metrics?keys=loss"


def log_of(run: Path) -> str:
    """The topic of its log."""
    return f"/api/v1/runs/{run.name}/log"


def test_ten_clients_see_every_point_once_whenever_they_come(url: str, run: Path) -> None:
    watchers, curves = [], []
    for number in range(10):
        watchers.append(Watcher(url))
        curves.append(Curve())
        watchers[-1].subscribe(metrics_of(run))
        curves[-1].take(watchers[-1].next())
        add_points(run, 5 + number)
    for watcher, curve in zip(watchers, curves, strict=True):
        while len(curve.steps) < 15:
            curve.take(watcher.next())
        assert curve.steps == list(range(15))
        assert curve.wholes == 1
        watcher.socket.close()


@pytest.mark.slow
def test_page_of_the_api_is_sent_again_only_when_it_changed(url: str, run: Path) -> None:
    topic = f"/api/v1/runs/{run.name}"
    with Watcher(url) as watcher:
        watcher.subscribe(topic, "/api/v1/status")
        assert watcher.next(topic)["note"] == ""
        for _ in range(2):  # the status has the time in it, so it is another one each second
            watcher.next("/api/v1/status")
        (run / "note.md").write_text("seen")
        assert watcher.next(topic)["note"] == "seen"
        assert [name for name, _ in watcher.seen].count(topic) == 2


def test_topic_that_was_left_is_not_sent_any_more(url: str, run: Path) -> None:
    with Watcher(url) as watcher:
        watcher.subscribe(metrics_of(run), log_of(run))
        watcher.next(metrics_of(run))
        watcher.next(log_of(run)) if len(watcher.seen) < 2 else None
        watcher.socket.send(json.dumps({"unsubscribe": [metrics_of(run)]}))
        add_points(run, 5, 3)
        for number in range(3, 6):
            add_lines(run, number)
            watcher.next(log_of(run))
        assert [name for name, _ in watcher.seen].count(metrics_of(run)) == 1


def test_deleted_folder_is_told_once_and_its_return_too(
    url: str, lab: Settings, run: Path, tmp_path: Path
) -> None:
    index.record(lab, run)
    with Watcher(url) as watcher:
        watcher.subscribe(metrics_of(run))
        watcher.next()
        shutil.move(run, tmp_path / run.name)
        error = watcher.next(metrics_of(run))["error"]
        assert (error["status"], error["code"]) == (404, "gone")
        assert "melete store rebuild" in error["message"]
        watcher.subscribe("/api/v1/status")
        watcher.next("/api/v1/status")
        watcher.next("/api/v1/status")
        shutil.move(tmp_path / run.name, run)
        assert len(Curve().take(watcher.next(metrics_of(run)))) == 5
        assert [name for name, _ in watcher.seen].count(metrics_of(run)) == 3


def test_resumed_run_that_rewrote_its_metrics_is_sent_whole(url: str, run: Path) -> None:
    curve = Curve()
    with Watcher(url) as watcher:
        watcher.subscribe(metrics_of(run))
        curve.take(watcher.next())
        kept = (run / "metrics.jsonl").read_text().splitlines(keepends=True)[:2]
        folder.replace_file(run / "metrics.jsonl", "".join(kept))
        assert curve.take(watcher.next()) == [0, 1]
        add_points(run, 2)
        assert curve.take(watcher.next()) == [0, 1, 2]
        assert curve.wholes == 2


@pytest.mark.parametrize(
    "message",
    ["", "null", "[]", '"/api/v1/status"', '{"subscribe": "/api/v1/status"}', '{"publish": []}', "[" * 20_000,
     '{"subscribe": [1e999], "x": NaN', b"\x00\xff"],
    ids=["empty", "null", "list", "text", "no-list", "unknown", "deep", "cut", "binary"],
)  # fmt: skip
def test_message_that_is_none_is_answered_and_the_connection_goes_on(url: str, message: str | bytes) -> None:
    with Watcher(url) as watcher:
        watcher.socket.send(message)
        assert watcher.next("")["error"]["code"] == "bad_message"
        watcher.subscribe("/api/v1/status")
        assert "now_s" in watcher.next("/api/v1/status")


@pytest.mark.parametrize(
    ("topic", "status"),
    [("/api/v1/rnus", 404), ("/metrics", 404), ("runs", 400), (7, 400), (None, 400), ({"a": 1}, 400),
     ("/api/v1/runs/../../etc/passwd", 404), ("/api/v1/runs/%2e%2e%2f%2e%2e/log", 404), ("/api/v1/live", 404),
     ("/api/v1/" + "x" * 3_000, 400), ("/api/v1/runs?limt=2", 400), ("/api/v1/runs\n", 400), ("/parts/none", 404)],
)  # fmt: skip
def test_topic_that_cannot_be_watched_is_refused_on_itself(url: str, topic: Any, status: int) -> None:
    with Watcher(url) as watcher:
        watcher.subscribe(topic)
        assert watcher.next()["error"]["status"] == status
        assert watcher.seen[0][0] == str(topic)[:200]


def test_path_with_a_typing_mistake_is_answered_with_the_right_one(url: str) -> None:
    with Watcher(url) as watcher:
        watcher.subscribe("/api/v1/rnus")
        assert "Did you mean '/api/v1/runs'?" in watcher.next()["error"]["message"]


@pytest.mark.parametrize("path", ["/log/stream", "/files/log.txt"])
def test_stream_and_download_are_no_topics(url: str, run: Path, path: str) -> None:
    with Watcher(url) as watcher:
        watcher.subscribe(f"/api/v1/runs/{run.name}{path}")
        error = watcher.next()["error"]
        assert (error["code"], error["status"]) == ("not_watchable", 400)


def test_connection_watches_a_limited_number_of_topics(url: str) -> None:
    with Watcher(url) as watcher:
        watcher.subscribe(*[f"/api/v1/runs?limit={number + 1}" for number in range(MOST_TOPICS + 1)])
        last = f"/api/v1/runs?limit={MOST_TOPICS + 1}"
        assert f"{MOST_TOPICS} topics at most" in watcher.next(last)["error"]["message"]


@pytest.mark.parametrize("size", [70_000, 10_000_000])
def test_message_that_is_too_long_ends_its_connection_only(url: str, size: int) -> None:
    with Watcher(url) as watcher:
        with suppress(ConnectionClosed):  # it may end before all was sent
            watcher.socket.send("x" * size)
        with pytest.raises(ConnectionClosed) as ended:
            watcher.next()
    # A server that stops to read in the middle of what is sent cannot always say why.
    assert ended.value.rcvd is None or ended.value.rcvd.code == live_socket.TOO_LONG
    with Watcher(url) as watcher:
        watcher.subscribe("/api/v1/status")
        assert watcher.next()["now_s"]


def test_page_of_another_site_gets_no_connection(url: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Watcher(url, origin="http://evil.example")
    assert refused.value.response.status_code == 403


class Stranger:
    """Stands in front of an application and says of everybody whether they may stay."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.valid = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def still_valid() -> bool:
            return self.valid

        scope.setdefault("state", {})["still_valid"] = still_valid
        await self._app(scope, receive, send)


@pytest.fixture
def big(lab: Settings) -> Iterator[tuple[str, Hub, Stranger]]:
    """A server whose hub is impatient, with a topic of a megabyte that is another one at each look."""
    hub = Hub(Store(lab), check_s=0.1, stuck_s=0.5)

    async def page(_: Request) -> Response:
        return JSONResponse({"now_s": time.time(), "padding": "x" * 1_000_000})

    async def serve(websocket: WebSocket) -> None:
        await live_socket.serve(websocket, hub)

    app = Starlette(routes=[Route("/big", page), WebSocketRoute("/live", serve)])
    hub.add("/big", app)
    gate = Stranger(app)
    with served(gate, lab) as found:
        yield found, hub, gate


@pytest.mark.slow
def test_client_that_never_reads_is_dropped_and_leaves_nothing(big: tuple[str, Hub, Stranger]) -> None:
    url, hub, _ = big
    host, _, port = url.removeprefix("http://").partition(":")
    asleep = socket.create_connection((host, int(port)))
    asleep.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    asleep.sendall(
        b"GET /live HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert asleep.recv(12) == b"HTTP/1.1 101"
    wanted = b'{"subscribe":["/big"]}'
    asleep.sendall(bytes([0x81, 0x80 | len(wanted), 0, 0, 0, 0]) + wanted)  # masked with zeros
    wait_until(lambda: hub.watched == ["/big"])
    wait_until(lambda: hub.watched == [] and not hub.clients)
    asleep.close()


@pytest.mark.slow
def test_topic_is_asked_once_for_all_who_watch_it_and_not_at_all_without_them(lab: Settings) -> None:
    hub, asked = Hub(Store(lab)), []

    async def page(_: Request) -> Response:
        asked.append(time.monotonic())
        return JSONResponse({"count": len(asked)})

    async def serve(websocket: WebSocket) -> None:
        await live_socket.serve(websocket, hub)

    app = Starlette(routes=[Route("/page", page), WebSocketRoute("/live", serve)])
    hub.add("/page", app)
    with served(app, lab) as url:
        watchers = [Watcher(url, "/live") for _ in range(5)]
        for watcher in watchers:
            watcher.subscribe("/page")
        texts = [watcher.until("/page", lambda payload: payload["count"] >= 7) for watcher in watchers]
        assert texts == [{"count": 7}] * 5  # one answer, which all of them were sent
        for watcher in watchers:
            watcher.socket.close()
        wait_until(lambda: not hub.watched)
        assert not hub.clients


def test_client_whose_token_was_revoked_is_sent_to_sign_in(big: tuple[str, Hub, Stranger]) -> None:
    url, hub, gate = big
    with Watcher(url, "/live", max_size=None) as watcher:
        watcher.subscribe("/big")
        watcher.next()
        gate.valid = False
        with pytest.raises(ConnectionClosed) as ended:
            watcher.until("/big", lambda _: False)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == SIGN_IN != TRY_AGAIN
    wait_until(lambda: hub.watched == [])


def test_server_that_starts_again_sends_the_whole_to_who_comes_back(lab: Settings, run: Path) -> None:
    with served(gated(lab), lab) as url, Watcher(url) as watcher:
        watcher.subscribe(metrics_of(run))
        watcher.next()
        port = int(url.rpartition(":")[2])
    with pytest.raises(ConnectionClosed):
        watcher.next()
    add_points(run, 5, 2)
    with served(gated(lab), lab, port) as url, Watcher(url) as watcher:
        watcher.subscribe(metrics_of(run))
        assert Curve().take(watcher.next()) == list(range(7))


def test_stream_of_a_log_goes_on_until_its_run_ends(url: str, lab: Settings, run: Path) -> None:
    from melete.api.client import Client

    with Client(url) as client:
        lines = client.follow(run.name)
        assert [next(lines).text for _ in range(3)] == ["line 0", "line 1", "line 2"]
        add_lines(run, 3, 2)
        assert [next(lines).text for _ in range(2)] == ["line 3", "line 4"]
        add_lines(run, 5)
        folder.set_state(run, folder.read(run), RunState.SUCCEEDED)
        assert [line.text for line in lines] == ["line 5"]
        assert [line.text for line in client.follow(run.name, after=len("line 0\n") * 5)] == ["line 5"]


def wait_until(fact: Any) -> None:
    """Waits for a fact."""
    until_s = time.monotonic() + LONGEST_S
    while not fact():
        assert time.monotonic() < until_s
        time.sleep(0.02)
