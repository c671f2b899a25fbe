"""`melete serve` with the API: without any model, beside a model, and what it says where nothing was trained yet."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
from starlette.testclient import TestClient

from lab_at_hand import fill
from melete.api.alone import gated
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


@pytest.mark.parametrize(
    "arguments", [("--no-model",), pytest.param(("--model", "echo"), marks=pytest.mark.slow)]
)
def test_serve_offers_the_store_with_and_without_a_model(home: Settings, arguments: tuple[str, ...]) -> None:
    with database.connect(home.database) as connection:
        fill(connection)
    with serving(*arguments) as (url, said):
        assert f"{url}/api/v1/" in said
        listed = httpx.get(f"{url}/api/v1/").json()
        assert httpx.get(f"http://{url[7:]}{listed[0]['url']}").json()["object"] == "list"
        assert len(httpx.get(f"{url}/api/v1/sessions").json()["data"]) == 12
        served = [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
        assert served == ([] if arguments == ("--no-model",) else ["echo"])
        assert httpx.get(f"{url}/health").json()["status"] == "ok"


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


@pytest.mark.slow
def test_api_alone_loads_no_torch() -> None:
    code = (
        "import sys; from melete import settings; from melete.api.alone import gated; gated(settings.load());"
        "from melete.serve import listen; assert not {'torch', 'transformers', 'litellm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("token", "headers", "status"),
    [
        (None, {}, 200),
        (None, {"Host": "evil.example"}, 403),
        (None, {"Origin": "http://evil.example"}, 403),
        ("s3cret", {}, 401),
        ("s3cret", {"Authorization": "Bearer wrong"}, 401),
        ("s3cret", {"Authorization": "Bearer s3cret"}, 200),
    ],
)
def test_api_alone_stands_behind_the_gate(
    home: Settings, token: str | None, headers: dict[str, str], status: int
) -> None:
    with TestClient(gated(replace(home, token=token)), base_url="http://127.0.0.1") as client:
        assert client.get("/api/v1/sessions", headers=headers).status_code == status
        assert client.get("/health").status_code == 200


def test_api_alone_on_a_taken_port_or_an_open_address_is_a_server_error(
    call: Callable[..., tuple[int, str, str]],
) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        code, _, said = call("serve", "--no-model", "--port", str(taken.getsockname()[1]))
        assert (code, "already in use" in said) == (8, True)
    code, _, said = call("serve", "--no-model", "--host", "0.0.0.0", "--port", "0")
    assert (code, "MELETE_TOKEN" in said) == (8, True)
