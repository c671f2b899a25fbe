"""The gate of a server that serves models only: `MELETE_TOKEN` or loopback; pages of other sites are kept out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from melete.errors import ServerError
from melete.serve import server as serving
from melete.serve.server import Server
from melete.settings import Settings

from .conftest import echo_model


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a token."""
    with Server({"echo": echo_model()}, Settings.of(tmp_path_factory.mktemp("home"), "s3cret")) as running:
        yield running


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}, {"Cookie": "melete_token=s3cret"}],
)
def test_token_missing_or_wrong_is_401_in_openai_shape(guarded: Server, headers: dict[str, str]) -> None:
    response = httpx.get(f"{guarded.url}/v1/models", headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert "s3cret" not in response.text


@pytest.mark.parametrize(
    "path", ["/v1/models", "/openapi.json", "/v1/tools/calculator", "/v1/models/echo/reload"]
)
def test_every_api_path_asks_for_the_token(guarded: Server, path: str) -> None:
    assert httpx.post(guarded.url + path).status_code == 401


def test_right_token_works_with_the_official_client(guarded: Server) -> None:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="s3cret") as client:
        assert [model.id for model in client.models.list()] == ["echo"]


def test_health_asks_for_no_token(guarded: Server) -> None:
    assert httpx.get(f"{guarded.url}/health").json()["status"] == "ok"


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}]
)
def test_page_of_another_site_is_refused_even_without_token(server: Server, headers: dict[str, str]) -> None:
    response = httpx.post(f"{server.url}/v1/chat/completions", headers=headers, content=b"{}")
    assert response.status_code == 403


def test_address_beyond_loopback_without_token_is_a_server_error(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="MELETE_TOKEN") as caught:
        serving.bind("0.0.0.0", 0, Settings.of(tmp_path))
    assert caught.value.exit_code == 8


def test_address_beyond_loopback_with_token_is_bound(tmp_path: Path) -> None:
    listener = serving.bind("0.0.0.0", 0, Settings.of(tmp_path, "s3cret"))
    assert serving.url_of(listener).startswith("http://127.0.0.1:")
    listener.close()


def test_port_in_use_names_port_and_next_step(server: Server, tmp_path: Path) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(ServerError, match=rf"Port {port} .*\n.*\n.*--port {port + 1}"):
        serving.bind("127.0.0.1", port, Settings.of(tmp_path))
