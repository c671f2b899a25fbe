"""Topics that send increments, whenever a writer writes and readers come: nothing is lost, nothing doubled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from live_at_hand import add_lines, add_points, empty_run
from melete.access import LOCAL
from melete.api.app import create_app
from melete.api.live.client import MOST_WAITING, Client
from melete.api.live.topic import Place, Topic, parse
from melete.api.live.topics import log, metrics
from melete.api.live.watch import Joined, Message, Watch
from melete.api.store import Store
from melete.runs.folder import replace_file
from melete.settings import Settings

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 40)),
        st.tuples(st.sampled_from(["half", "rewind", "look", "look", "join", "join"]), st.just(0)),
    ),
    max_size=16,
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home without runs."""
    return Settings.of(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="module")
def api(lab: Settings) -> Any:
    """The API over it."""
    return create_app(lab)


def topic_of(api: Any, text: str) -> Topic:
    """A topic as a client would name it."""
    return parse(text, [Place("/api/v1", api, "/api/v1")], LOCAL)


class Reader:
    """A client's picture of a stream: `items` of a payload, which a whole replaces and a more extends."""

    def __init__(self, items: Callable[[Any], list[Any]]) -> None:
        self._items = items
        self.seen: list[Any] = []

    def take(self, message: Message | None) -> None:
        """Adds a message."""
        if message is None:
            return
        _, payload = json.loads(message.text)
        ((kind, content),) = payload.items()
        assert (kind == "whole") == message.whole
        self.seen = self._items(content) if message.whole else self.seen + self._items(content)


async def play(
    watch: Watch,
    steps: list[tuple[str, int]],
    write: Callable[[str, int], None],
    reader: Callable[[], Reader],
) -> list[Reader]:
    """Interleaves writing, looks and newcomers, as the poller does; at the end everybody has had a last look."""
    readers: list[Reader] = []

    async def join() -> None:
        joined: Joined = await watch.join()
        for one in readers:
            one.take(joined.news)
        readers.append(reader())
        readers[-1].take(joined.whole)

    async def look() -> None:
        message = await watch.look()
        for one in readers:
            one.take(message)

    does: dict[str, Callable[[], Awaitable[None]]] = {"join": join, "look": look}
    await join()
    for what, count in steps:
        if what in does:
            await does[what]()
        else:
            write(what, count)
    write("write", 1)  # ends a line that was written by half
    await look()
    await join()
    return readers


@pytest.fixture(scope="module")
def run(lab: Settings) -> Path:
    """A run whose files each example writes anew."""
    return empty_run(lab)


@effort(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_curves_at_any_interleaving_hold_each_point_once(
    api: Any, lab: Settings, run: Path, steps: list[tuple[str, int]]
) -> None:
    file = run / "metrics.jsonl"
    file.unlink(missing_ok=True)
    written = 0

    def write(what: str, count: int) -> None:
        nonlocal written
        if what == "write":
            with file.open("a") as end:
                if file.stat().st_size and not file.read_text().endswith("\n"):
                    end.write(": 1}\n")
            add_points(run, written, count)
            written += count
        elif what == "half":
            with file.open("a") as end:
                end.write('{"step": 0, "half')
        elif what == "rewind" and file.exists():
            kept = [line for line in file.read_text().splitlines() if '"loss"' in line][: written // 2]
            replace_file(file, "".join(line + "\n" for line in kept))
            written = len(kept)

    topic = topic_of(api, f"/api/v1/runs/{run.name}/metrics?keys=loss&max=5000")
    watch = metrics.watch(topic, Store(lab))
    assert watch is not None
    readers = asyncio.run(
        play(
            watch,
            steps,
            write,
            lambda: Reader(lambda found: [s for f in found["figures"] for s in f["steps"]]),
        )
    )
    assert all(reader.seen == list(range(written)) for reader in readers)


@effort(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_log_at_any_interleaving_holds_each_line_once(
    api: Any, lab: Settings, run: Path, steps: list[tuple[str, int]]
) -> None:
    file = run / "log.txt"
    file.write_text("")
    written = 0

    def write(what: str, count: int) -> None:
        nonlocal written
        if what in ("write", "half"):
            count = 30 * max(count, 1)  # sometimes more than a page
            add_lines(run, written, count)
            written += count
        elif what == "rewind":
            file.write_text("")
            written = 0

    topic = topic_of(api, f"/api/v1/runs/{run.name}/log")
    watch = log.watch(topic, Store(lab))
    assert watch is not None
    readers = asyncio.run(
        play(watch, steps, write, lambda: Reader(lambda page: [line["text"] for line in page["data"]]))
    )
    for reader in readers:
        assert reader.seen == [f"line {number}" for number in range(written)][-len(reader.seen) :]
        assert len(reader.seen) >= min(written, 200)


def test_figure_that_begins_later_arrives_with_its_first_value(api: Any, lab: Settings) -> None:
    path = empty_run(lab)
    add_points(path, 0, 3)
    watch = metrics.watch(topic_of(api, f"/api/v1/runs/{path.name}/metrics?keys=loss,val_loss"), Store(lab))
    assert watch is not None

    async def look() -> Any:
        whole = (await watch.join()).whole
        add_points(path, 3, 1, key="val_loss")
        return whole, await watch.look()

    whole, more = asyncio.run(look())
    assert [figure["key"] for figure in json.loads(whole.text)[1]["whole"]["figures"]] == ["loss"]
    assert [(f["key"], f["steps"]) for f in json.loads(more.text)[1]["more"]["figures"]] == [
        ("val_loss", [3])
    ]


def test_curves_of_a_sudden_million_bytes_are_sent_whole_and_thinned(api: Any, lab: Settings) -> None:
    path = empty_run(lab)
    add_points(path, 0, 3)
    watch = metrics.watch(topic_of(api, f"/api/v1/runs/{path.name}/metrics?keys=loss&max=100"), Store(lab))
    assert watch is not None

    async def look() -> Any:
        await watch.join()
        add_points(path, 3, 30_000)
        return await watch.look()

    message = asyncio.run(look())
    (loss,) = json.loads(message.text)[1]["whole"]["figures"]
    assert (loss["count"], len(loss["steps"]) <= 100, loss["last_step"]) == (30_003, True, 30_002)


@pytest.mark.parametrize("query", ["keys=loss&max=2", "keys=loss&nothing=1", "keys=loss&from=x"])
def test_topic_with_a_wrong_parameter_is_told_what_the_api_says(
    api: Any, lab: Settings, run: Path, query: str
) -> None:
    watch = metrics.watch(topic_of(api, f"/api/v1/runs/{run.name}/metrics?{query}"), Store(lab))
    assert watch is not None

    async def twice() -> tuple[Joined, Message | None]:
        return await watch.join(), await watch.look()

    joined, news = asyncio.run(twice())
    assert joined.whole is not None
    assert news is None
    assert json.loads(joined.whole.text)[1]["error"]["status"] == 400


def test_client_that_does_not_read_holds_little_and_is_sent_the_whole_later() -> None:
    asked: list[str] = []
    client = Client(LOCAL, lambda client, topic: asked.append(topic))
    client.topics |= {"/log", "/state"}
    sent: list[str] = []

    async def behave() -> None:
        async def send(text: str) -> None:
            sent.append(text)

        for number in range(3_000):
            client.put("/log", Message(f"more {number} " + "x" * 1_000, whole=False))
            client.put("/state", Message(f"state {number}", whole=True))
            assert client.waiting_size <= MOST_WAITING
        writer = asyncio.create_task(client.write(send))
        while not asked:
            await asyncio.sleep(0)
        client.put("/log", Message("whole", whole=True))
        client.put("/log", Message("more", whole=False))
        while "more" not in sent:
            await asyncio.sleep(0)
        writer.cancel()

    asyncio.run(behave())
    assert asked == ["/log"]
    assert sent == ["state 2999", "whole", "more"]
