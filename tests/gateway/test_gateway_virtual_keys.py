"""Virtual keys of LiteLLM: our requests against its own request and response classes, and its refusals in our words."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Engine, select

from gateway_at_hand import need_litellm
from melete.errors import ConfigError, GatewayError, SessionError, UnknownNameError
from melete.gateway import program, sessions
from melete.gateway.issuers import Policy, key_hash
from melete.gateway.issuers.litellm import LiteLLMIssuer
from melete.gateway.sessions import CREDENTIALS
from melete.settings import Settings
from melete.store import database

ADMIN = "sk-admin-of-the-contract"


@pytest.fixture
def engine(home: Settings) -> Iterator[Engine]:
    with database.opened(home.database) as opened:
        yield opened


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that answers with LiteLLM's own classes, in LiteLLM's Python."""
    from melete import settings as configured

    settings = configured.load({"MELETE_HOME": str(tmp_path_factory.mktemp("home"))})
    need_litellm(settings)
    script = Path(__file__).with_name("key_contract.py")
    with subprocess.Popen(
        [program.find(settings).python, "-I", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        yield f"http://127.0.0.1:{child.stdout.readline().strip()}"
        child.kill()


class Refusing(BaseHTTPRequestHandler):
    """Answers as the class says, and repeats the request in its error as providers may."""

    status = 500
    said = ""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        data = f"{self.said} {body}".encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def refusing() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def opened(engine: Engine, **fields: Any) -> str:
    with engine.begin() as connection:
        return sessions.open_session(connection, model="echo", expires_s=time.time() + 600, **fields).id


def rows(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(CREDENTIALS)).mappings()]


def held(url: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.load(urllib.request.urlopen(f"{url}/keys", timeout=5))
    return found


@pytest.mark.slow
def test_issue_against_litellms_own_classes_holds_models_time_budget_and_session(
    engine: Engine, contract: str
) -> None:
    session = opened(engine)
    lent = LiteLLMIssuer(engine, contract, ADMIN).issue(
        session, ["echo"], time.time() + 90, Policy(budget_usd=0.5)
    )
    key = held(contract)[lent.key_hash]
    assert lent.key_hash == key_hash(lent.key)
    assert key["models"] == ["echo"]
    assert key["allowed_routes"] == ["llm_api_routes"]
    assert key["max_budget"] == 0.5
    assert key["metadata"]["session_id"] == session
    assert key["key_alias"].startswith(f"{session}.")
    assert key["duration"] in ("90s", "91s")


@pytest.mark.slow
def test_issue_keeps_the_hash_and_never_the_key(engine: Engine, contract: str) -> None:
    session = opened(engine)
    lent = LiteLLMIssuer(engine, contract, ADMIN).issue(session, ["echo"], time.time() + 90)
    (row,) = rows(engine)
    assert (row["key_hash"], row["session_id"], row["issuer"]) == (lent.key_hash, session, "litellm")
    assert lent.key not in repr(row)
    assert lent.key not in repr(lent)


@pytest.mark.slow
def test_revoke_deletes_all_keys_of_the_session_and_no_others(engine: Engine, contract: str) -> None:
    issuer = LiteLLMIssuer(engine, contract, ADMIN)
    mine, other = opened(engine), opened(engine)
    first, second = (issuer.issue(mine, ["echo"], time.time() + 90) for _ in range(2))
    kept = issuer.issue(other, ["echo"], time.time() + 90)
    assert issuer.revoke(mine) == 2
    assert issuer.revoke(mine) == 0
    assert {first.key_hash, second.key_hash}.isdisjoint(held(contract))
    assert kept.key_hash in held(contract)


@pytest.mark.slow
def test_revoke_of_a_key_that_litellm_has_no_more_marks_it_revoked(engine: Engine, contract: str) -> None:
    issuer = LiteLLMIssuer(engine, contract, ADMIN)
    session = opened(engine)
    issuer.issue(session, ["echo"], time.time() + 90)
    LiteLLMIssuer(engine, contract, ADMIN).revoke(session)
    with engine.begin() as connection:
        connection.execute(CREDENTIALS.update().values(revoked_s=None))
    assert issuer.revoke(session) == 1
    assert rows(engine)[0]["revoked_s"] is not None


@pytest.mark.slow
def test_issue_with_a_wrong_admin_key_says_so_and_leaves_no_row(engine: Engine, contract: str) -> None:
    with pytest.raises(GatewayError, match="admin key is not accepted") as caught:
        LiteLLMIssuer(engine, contract, "sk-wrong").issue(opened(engine), ["echo"], time.time() + 90)
    assert "sk-wrong" not in str(caught.value)
    assert rows(engine) == []


@pytest.mark.parametrize(
    ("status", "said", "shown"),
    [
        (500, "DB not connected", "no database"),
        (400, "Key with alias 's' already exists", "alias exists"),
        (500, "no idea", "it refused"),
        (500, "no idea of s-261120-201249-0db5c3e3db", "it refused"),
        (200, "not JSON", "does not answer"),
    ],
)
def test_issue_that_litellm_refuses_is_one_message_without_the_key(
    engine: Engine, refusing: str, monkeypatch: pytest.MonkeyPatch, status: int, said: str, shown: str
) -> None:
    monkeypatch.setattr(Refusing, "status", status)
    monkeypatch.setattr(Refusing, "said", said)
    with pytest.raises(GatewayError, match=shown) as caught:
        LiteLLMIssuer(engine, refusing, ADMIN).issue(opened(engine), ["echo"], time.time() + 90)
    assert "sk-" not in str(caught.value)
    assert rows(engine) == []


def test_issue_by_a_litellm_that_is_not_there_is_one_message(engine: Engine) -> None:
    with pytest.raises(GatewayError, match="does not answer"):
        LiteLLMIssuer(engine, "http://127.0.0.1:9", ADMIN).issue(opened(engine), ["echo"], time.time() + 90)
    assert rows(engine) == []


@pytest.mark.parametrize("policy", [Policy(content=True), Policy(max_requests=3)])
def test_issue_of_what_a_virtual_key_cannot_do_is_refused(engine: Engine, policy: Policy) -> None:
    issuer = LiteLLMIssuer(engine, "http://127.0.0.1:9", ADMIN)
    with pytest.raises(ConfigError, match="cannot do"):
        issuer.issue(opened(engine), ["echo"], time.time() + 90, policy)


@pytest.mark.parametrize("models", [[], ["*"], ["echo", "all-proxy-models"]])
def test_issue_for_all_models_is_refused(engine: Engine, models: list[str]) -> None:
    issuer = LiteLLMIssuer(engine, "http://127.0.0.1:9", ADMIN)
    with pytest.raises(ConfigError, match="names of the models"):
        issuer.issue(opened(engine), models, time.time() + 90)


def test_issue_for_an_unknown_or_finished_session_is_refused(engine: Engine) -> None:
    issuer = LiteLLMIssuer(engine, "http://127.0.0.1:9", ADMIN)
    with pytest.raises(UnknownNameError):
        issuer.issue("s-none", ["echo"], time.time() + 90)
    with pytest.raises(SessionError, match="finalised"):
        issuer.issue(opened(engine, state="finalised"), ["echo"], time.time() + 90)
    with pytest.raises(SessionError, match="no time left"):
        issuer.issue(opened(engine), ["echo"], time.time() - 1)
