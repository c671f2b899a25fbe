"""`melete serve` with the API: without any model, beside a model, and what it says where nothing was trained yet."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from lab_at_hand import fill
from melete.settings import Settings
from melete.store import database

MELETE = [sys.executable, "-m", "melete"]


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, str]]:
    """The command in a process of its own: its URL and what it said."""
    with subprocess.Popen(
        [*MELETE, "serve", "--port", "0", *arguments], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = child.stdout.readline()
            assert line, f"it ended: {said}"
            said += line
        url = re.search(r"http://[\d.:]+", said)
        assert url is not None
        try:
            yield url[0], said
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(timeout=30)


@pytest.mark.parametrize("arguments", [("--no-model",), ("--model", "echo")])
def test_serve_offers_the_store_with_and_without_a_model(home: Settings, arguments: tuple[str, ...]) -> None:
    with database.connect(home.database) as connection:
        fill(connection)
    with serving(*arguments) as (url, said):
        assert f"{url}/api/v1/" in said
        listed = httpx.get(f"{url}/api/v1/").json()
        assert httpx.get(f"http://{url[7:]}{listed[0]['url']}").json()["object"] == "list"
        assert len(httpx.get(f"{url}/api/v1/sessions").json()["data"]) == 12
        assert len(httpx.get(f"{url}/v1/models").json()["data"]) == len(arguments) - 1


def test_serve_where_nothing_was_trained_names_the_way_without_a_model(
    call: Callable[..., tuple[int, str, str]],
) -> None:
    code, _, said = call("serve", "--port", "0")
    assert code == 4
    assert "--no-model" in said


def test_no_model_beside_a_model_is_a_usage_error(call: Callable[..., tuple[int, str, str]]) -> None:
    code, _, said = call("serve", "--no-model", "--model", "echo")
    assert code == 2
    assert "--no-model" in said
