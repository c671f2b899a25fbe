"""The door before an application of our own: what comes through, what is recorded, and what happens on a full disk."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import door_alone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_at_hand import Lent, lend
from melete.gateway import hook_request
from melete.gateway.events import Event, parse
from melete.gateway.hook_door import Door, inside
from melete.gateway.hook_keys import Refusal
from melete.gateway.hook_record import class_of
from melete.settings import Settings

CHAT = "/v1/chat/completions"
SAID = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


class House:
    """A door on a spool of its own, and the client's side of it."""

    def __init__(self, home: Settings, folder: Path, **spool: Any) -> None:
        self.folder = folder
        self.door: Door = door_alone.door(home.database, folder, **spool)
        self.lent: Lent = lend(home, ("echo",))
        self.seen: list[dict[str, Any]] = []
        application = self.door.application

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            self.seen.append(dict(scope))
            await application(scope, receive, send)

        self.door.application = watched

    def ask(
        self,
        body: Any = SAID,
        path: str = CHAT,
        headers: dict[str, str] | None = None,
        *,
        parts: list[dict[str, Any]] | None = None,
        on_send: Callable[[Any], None] | None = None,
    ) -> tuple[int, bytes]:
        """One request through ASGI; `parts` are the messages that the door receives instead of a whole body."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        waiting = parts or [{"type": "http.request", "body": data, "more_body": False}]
        sent: list[Any] = []
        told = {"authorization": f"Bearer {self.lent.key}", **(headers or {})}
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"secret=1",
            "headers": [(name.lower().encode(), value.encode()) for name, value in told.items()],
        }

        async def receive() -> Any:
            if not waiting:
                await asyncio.Event().wait()
            return waiting.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)
            if on_send is not None:
                on_send(message)

        async def call() -> None:
            inside.set(None)
            await self.door(scope, receive, send)

        asyncio.run(call())
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])

    def events(self, kind: str) -> list[Event]:
        lines = [
            line for path in sorted(self.folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()
        ]
        return [event for line in lines if (event := parse(line)) is not None and event.kind == kind]

    def close(self) -> None:
        self.door.recorder.spool.close()


@pytest.fixture
def house(home: Settings, tmp_path: Path) -> Iterator[House]:
    found = House(home, tmp_path / "spool")
    yield found
    found.close()


def test_application_sees_neither_the_key_nor_what_the_client_added(house: House) -> None:
    headers = {
        "X-Anything": "x",
        "User-Agent": "agent/1.0 (secret words)",
        "x-litellm-tags": "a",
        "Cookie": "b=c",
    }
    assert house.ask(headers=headers)[0] == 200
    (scope,) = house.seen
    assert house.lent.key not in str(scope)
    assert {name for name, _ in scope["headers"]} == {
        b"content-type",
        b"content-length",
        b"authorization",
        b"user-agent",
    }
    assert (scope["query_string"], scope["path"]) == (b"", CHAT)
    assert b"secret" not in dict(scope["headers"])[b"user-agent"]
    assert house.events("begin")[0].fields["changed"] == ["x-litellm-tags"]


def test_end_is_written_before_the_client_gets_the_last_bytes(house: House) -> None:
    for stream, last in ((False, b"choices"), (True, b"[DONE]")):
        written: list[int] = []

        def look(message: Any, last: bytes = last, written: list[int] = written) -> None:
            if last in message.get("body", b"") and (last == b"[DONE]" or not message.get("more_body")):
                written.append(len(house.events("end")))

        house.ask({**SAID, "stream": stream}, on_send=look)
        assert written == [1 + stream]


def test_half_a_request_is_refused_and_never_reaches_the_application(house: House) -> None:
    parts = [
        {"type": "http.request", "body": b'{"model":"ec', "more_body": True},
        {"type": "http.disconnect"},
    ]
    assert house.ask(parts=parts)[0] == 400
    assert house.seen == []
    assert [event.fields["error_class"] for event in house.events("refused")] == ["client_abort"]


def test_body_that_is_too_large_is_refused_before_it_is_whole(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_request, "BODY_BYTES", 1000)
    part = {"type": "http.request", "body": bytes(600), "more_body": True}
    assert house.ask(parts=[part] * 5)[0] == 413


def test_compressed_body_is_refused(house: House) -> None:
    assert house.ask(headers={"Content-Encoding": "gzip"})[0] == 415


@settings(deadline=None)
@given(data=st.binary(max_size=300))
def test_any_body_is_an_object_or_refused(data: bytes) -> None:
    try:
        found = isinstance(hook_request.read_body(data, {}), dict)
    except Refusal as refusal:
        found = refusal.status == 400
    assert found


NAMES = ["model", "stream", "tools", "metadata", "stream_options", "temperature"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("endpoint", sorted(hook_request.PARAMETERS))
@settings(max_examples=40, deadline=None)
@given(body=st.dictionaries(st.sampled_from(NAMES) | st.text(), JSON))
def test_cleaned_body_holds_allowed_names_only_and_tells_known_ones(
    endpoint: str, body: dict[str, Any]
) -> None:
    try:
        passed, changed = hook_request.clean_body(endpoint, {**body, "model": "echo"}, ["echo"])
    except Refusal:
        return
    assert passed.keys() <= hook_request.PARAMETERS[endpoint]
    assert set(changed) <= hook_request.STRIPPED | {"other", "tools.mcp", "stream_options.other"}
    assert bool(changed) == (passed != {**body, "model": "echo"})


@pytest.mark.parametrize(
    ("agent", "product"),
    [
        ("OpenAI/Python 2.1.0", "OpenAI"),
        ("curl/7.88.1", "curl/7.88.1"),
        ("claude-cli/2.0.1 (external)", "claude-cli/2.0.1"),
        ("sk-0123456789abcdef", None),
        ("MyPassword/1", None),
        ("", None),
    ],
)
def test_of_a_user_agent_the_product_is_kept_and_no_more(agent: str, product: str | None) -> None:
    assert hook_request.client_of({b"user-agent": agent.encode()}) == product


def test_full_disk_refuses_new_requests_and_keeps_the_end_of_those_under_way(
    home: Settings, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(256 * 1024)
    seconds = [0.0]
    house = House(home, disk / "spool", reserve_bytes=32 * 1024, clock=lambda: seconds[0])
    ballast = disk / "ballast"

    def fill(message: Any) -> None:
        if message["type"] == "http.response.start":
            with ballast.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError:
                    return

    assert house.ask({**SAID, "stream": True}, on_send=fill)[0] == 200
    assert [event.fields["status"] for event in house.events("end")] == ["ok"]
    status, said = house.ask()
    while status == 200:  # until the page that was left is full too
        status, said = house.ask()
    assert (status, b"cannot record" in said) == (503, True)
    ends, begins = len(house.events("end")), len(house.events("begin"))
    assert ends == begins
    ballast.unlink()
    seconds[0] += 5
    assert house.ask()[0] == 200
    house.close()


def test_clock_that_jumps_leaves_durations_as_they_were(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.time()

    def jump(message: Any) -> None:
        monkeypatch.setattr("melete.gateway.hook_record.time.time", lambda: now_s - 86_400)

    assert house.ask({**SAID, "stream": True}, on_send=jump)[0] == 200
    (end,) = house.events("end")
    (begin,) = house.events("begin")
    assert 0 < end.fields["latency_ms"] < 10_000
    assert end.time_s == pytest.approx(begin.time_s + end.fields["latency_ms"] / 1000, abs=0.01)


def test_application_that_fails_is_an_error_that_is_recorded(house: House) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("inside")

    house.door.application = broken
    with pytest.raises(RuntimeError, match="inside"):
        house.ask()
    assert [event.fields["status"] for event in house.events("end")] == ["error"]


def test_flood_of_wrong_keys_is_recorded_in_part(house: House) -> None:
    for _ in range(300):
        house.ask(headers={"authorization": "Bearer sk-" + "z" * 40})
    assert 200 <= len(house.events("refused")) < 300


@pytest.mark.parametrize(
    ("status", "told", "exception", "expected"),
    [
        (400, "prompt is too long: 9 tokens", "BadRequestError", "context_window"),
        (400, "", "BadRequestError", "bad_request"),
        (500, "Connection error.", "InternalServerError", "connection"),
        (500, "", "InternalServerError", "provider_error"),
        (503, "", None, "provider_error"),
        (504, "", None, "timeout"),
        (408, "", "Timeout", "timeout"),
        (429, "", None, "rate_limit"),
        (418, "", None, "other"),
        (None, "", None, "other"),
    ],
)
def test_error_gets_its_class(status: int | None, told: str, exception: str | None, expected: str) -> None:
    assert class_of(status, told, exception) == expected
