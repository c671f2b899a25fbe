"""The documentation of the live topics says what is there, and its Python runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live_at_hand import add_lines, add_points, empty_run, served
from melete import find
from melete.api.alone import gated
from melete.api.live import hub, socket, streams
from melete.api.live.client import MOST_WAITING
from melete.api.live.topics import log, metrics
from melete.api.live.watch import Answers
from melete.records import RunState
from melete.runs import folder
from melete.settings import Settings

LIVE = (Path(__file__).parents[2] / "docs" / "live.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", LIVE, re.S)
RUN = "20261120-123405-pretrain-a1f3"


@pytest.fixture
def run(home: Settings) -> Path:
    """A run that has ended, with figures and a log."""
    path = empty_run(home)
    add_points(path, 0, 7)
    add_lines(path, 0, 3)
    folder.set_state(path, folder.read(path), RunState.SUCCEEDED)
    return path


@pytest.fixture
def url(home: Settings) -> Iterator[str]:
    """A server over it."""
    with served(gated(home), home) as found:
        yield found


def test_periods_and_limits_of_the_documentation_are_those_of_the_code() -> None:
    assert f"every {metrics.Metrics.period_s:g} s" in LIVE
    assert f"every {log.Log.period_s:g} s" in LIVE
    assert Answers.period_s == 1.0
    assert f"the {hub.MOST_TOPICS + 1}th topic" in LIVE
    assert f"more than {socket.LONGEST >> 10} KB" in LIVE
    assert f"nothing was read for {hub.STUCK_S:.0f} s" in LIVE
    assert {str(hub.TRY_AGAIN), str(hub.SIGN_IN), str(socket.TOO_LONG)} <= set(
        re.findall(r"\*\*(\d+)\*\*", LIVE)
    )
    assert (MOST_WAITING, streams.HEARTBEAT_S) == (
        1 << 20,
        10.0,
    )  # "a million characters", "every ten seconds"


def test_every_kind_of_stream_is_in_the_documentation() -> None:
    assert find.names(hub.KINDS) == ["log", "metrics"]
    assert all(f"/{kind}" in LIVE for kind in find.names(hub.KINDS))


def test_client_of_the_documentation_sees_the_curve(
    url: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    code = CODE[0][: CODE[0].index("asyncio.run(")].replace("ws://127.0.0.1:8675", url.replace("http", "ws"))
    exec(code, names)

    async def watch() -> list[str]:
        task = asyncio.create_task(names["main"](run.name))
        said: list[str] = []
        async with asyncio.timeout(20):
            while len(said) < 2:
                await asyncio.sleep(0.02)
                new = capsys.readouterr().out.split()
                if new and not said:
                    add_points(run, 7)
                said += new
        task.cancel()
        return said

    assert asyncio.run(watch()) == ["7", "8"]


def test_log_of_the_documentation_is_followed_to_its_end(
    url: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(CODE[1].replace("Client()", f"Client({url!r})").replace(RUN, run.name), {})
    assert capsys.readouterr().out.splitlines() == ["line 0", "line 1", "line 2"]
