"""Nobody gets in with anything but the key of a live session, and nobody in leads a request elsewhere; a real proxy."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from gateway_at_hand import AtHand, Lent, at_hand
from melete.gateway import sessions
from melete.gateway.echo.script import Failure, Reply, Script
from melete.gateway.hook_door import INNER_KEY
from melete.gateway.issuers import key_hash
from melete.gateway.issuers.embedded import EmbeddedIssuer
from melete.records import SessionState
from melete.store import database

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]

CHAT = "/v1/chat/completions"
SAID: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
FAILS = Script(turns=[Reply(error=Failure(status=500))])
Headers = dict[str, str]


def ask(
    hand: AtHand, path: str, headers: Headers, body: Any = SAID, method: str = "POST"
) -> tuple[int, bytes]:
    """One request, with the path and the headers exactly as given."""
    connection = http.client.HTTPConnection("127.0.0.1", hand.gateway.port, timeout=30)
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.putrequest(method, path, skip_accept_encoding=True)
    content = {"Content-Type": "application/json", "Content-Length": str(len(data))} if data else {}
    for name, value in {**content, **headers}.items():
        connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


@pytest.fixture(scope="module")
def hand() -> AtHand:
    return at_hand()


@pytest.fixture(scope="module")
def lent(hand: AtHand) -> Lent:
    """A live session that may use one model of three."""
    return hand.session(models=("echo",))


def ended(hand: AtHand, state: SessionState) -> str:
    """The key of a session that worked once and was then ended."""
    session = hand.session()
    assert ask(hand, CHAT, session.headers)[0] == 200
    with database.connect(hand.settings.database) as connection:
        sessions.move(connection, session.id, SessionState.LIVE)
        sessions.move(connection, session.id, state)
    return session.key


def revoked(hand: AtHand) -> str:
    session = hand.session()
    assert ask(hand, CHAT, session.headers)[0] == 200
    engine = database.open_engine(hand.settings.database)
    EmbeddedIssuer(engine).revoke(session.id)
    engine.dispose()
    return session.key


def bearer(key: str) -> Headers:
    return {"Authorization": f"Bearer {key}"}


WRONG_KEYS: dict[str, Callable[[AtHand, Lent], Headers]] = {
    "none": lambda hand, lent: {},
    "empty": lambda hand, lent: bearer(""),
    "unknown": lambda hand, lent: bearer("sk-" + "a" * 43),
    "of-a-provider": lambda hand, lent: bearer("sk-ant-api03-" + "b" * 80),
    "guessed-master": lambda hand, lent: bearer("sk-1234"),
    "inner": lambda hand, lent: bearer(INNER_KEY.decode().split()[1]),
    "expired": lambda hand, lent: hand.session(expires_in_s=-1.0).headers,
    "revoked": lambda hand, lent: bearer(revoked(hand)),
    "finalised": lambda hand, lent: bearer(ended(hand, SessionState.FINALISED)),
    "aborted": lambda hand, lent: bearer(ended(hand, SessionState.ABORTED)),
    "cut-short": lambda hand, lent: bearer(lent.key[:-1]),
    "lengthened": lambda hand, lent: bearer(lent.key + "A"),
    "lower-case": lambda hand, lent: bearer(lent.key.lower()),
    "its-hash": lambda hand, lent: bearer(key_hash(lent.key)),
    "sk-its-hash": lambda hand, lent: bearer("sk-" + key_hash(lent.key)),
    "alias": lambda hand, lent: bearer(lent.id),
    "sk-alias": lambda hand, lent: bearer(f"sk-{lent.id}"),
    "sql-or": lambda hand, lent: bearer("sk-' OR '1'='1' --"),
    "sql-union": lambda hand, lent: bearer("sk-' UNION SELECT session_id FROM credential --"),
    "wildcard": lambda hand, lent: bearer("sk-" + "%" * 43),
    "basic": lambda hand, lent: {
        "Authorization": "Basic " + base64.b64encode(f":{lent.key}".encode()).decode()
    },
    "two-bearers": lambda hand, lent: bearer(f"{lent.key}, Bearer {lent.key}"),
    "cookie": lambda hand, lent: {"Cookie": f"token={lent.key}"},
    "azure-header": lambda hand, lent: {"api-key": lent.key},
    "google-header": lambda hand, lent: {"x-goog-api-key": lent.key},
    "litellm-header": lambda hand, lent: {"x-litellm-api-key": f"Bearer {lent.key}"},
    "forwarded-user": lambda hand, lent: {"x-litellm-key-alias": lent.id, "x-forwarded-user": "admin"},
    "scrape-key": lambda hand, lent: bearer((hand.settings.gateway / "scrape.key").read_text().strip()),
}


@pytest.mark.parametrize("name", WRONG_KEYS)
def test_key_that_is_not_of_a_live_session_is_refused(hand: AtHand, lent: Lent, name: str) -> None:
    headers = WRONG_KEYS[name](hand, lent)
    seen = len(hand.upstream.seen), hand.upstream.seen[-1] if hand.upstream.seen else None
    status, said = ask(hand, CHAT, headers)
    assert status == 401
    assert b"error" in said
    assert seen == (len(hand.upstream.seen), hand.upstream.seen[-1] if hand.upstream.seen else None)


def test_key_in_the_address_is_refused(hand: AtHand, lent: Lent) -> None:
    assert ask(hand, f"{CHAT}?api_key={lent.key}&key={lent.key}", {})[0] == 401


WRONG_MODELS: dict[str, Any] = {
    "of-another-session": "echo-chat",
    "with-provider": "openai/echo",
    "deployment": "echo/echo",
    "star": "*",
    "both": "echo,echo-chat",
    "list": ["echo", "echo-chat"],
    "object": {"model": "echo-chat"},
    "blank": "echo ",
    "upper-case": "ECHO",
    "all": "all-proxy-models",
    "team": "all-team-models",
    "warm-up": "melete-warm-up",
    "null": None,
    "empty": "",
    "sql": "echo' OR '1'='1",
}


@pytest.mark.parametrize("name", WRONG_MODELS)
@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/messages"])
def test_model_that_the_session_may_not_use_is_refused(
    hand: AtHand, lent: Lent, path: str, name: str
) -> None:
    body = {**SAID, "input": "hello", "max_tokens": 5, "model": WRONG_MODELS[name]}
    assert ask(hand, path, lent.headers, body)[0] in (400, 403)


ROUTES = [
    ("POST", "/key/generate"), ("GET", "/key/info"), ("POST", "/key/delete"), ("GET", "/config/yaml"),
    ("POST", "/config/update"), ("POST", "/model/new"), ("GET", "/model/info"), ("GET", "/v1/model/info"),
    ("POST", "/user/new"), ("POST", "/team/new"), ("GET", "/spend/logs"), ("GET", "/global/spend"), ("GET", "/health"),
    ("GET", "/health/services"), ("GET", "/metrics"), ("GET", "/metrics/"), ("GET", "/cache/ping"), ("GET", "/routes"),
    ("POST", "/openai/deployments/echo-chat/chat/completions"), ("POST", "/engines/echo-chat/chat/completions"),
    ("POST", "/openai/v1/chat/completions"), ("POST", "/anthropic/v1/messages"), ("POST", "/vertex_ai/x"),
    ("POST", "/v1/embeddings"), ("POST", "/v1/completions"), ("POST", "/v1/images/generations"), ("POST", "/v1/files"),
    ("POST", "/v1/batches"), ("POST", "/mcp"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/ui"),
    ("GET", "/sso/key/generate"), ("GET", "/v1/responses/resp_1"), ("DELETE", "/v1/responses/resp_1"),
    ("POST", "/utils/transform_request"), ("GET", "/debug/memory/summary"), ("GET", "/"), ("PUT", CHAT), ("GET", CHAT),
    ("POST", "//v1/chat/completions"), ("POST", "/v1/../key/generate"), ("POST", f"{CHAT}/../../../key/generate"),
    ("POST", f"{CHAT}/"), ("POST", "/V1/chat/completions"), ("POST", "/v1/chat%2Fcompletions"),
    ("POST", f"{CHAT}%2f..%2f..%2f..%2fkey%2fgenerate"), ("POST", f"{CHAT};/key/generate"), ("POST", f"/.{CHAT}"),
    ("POST", "http://127.0.0.1/key/generate"), ("POST", f"{CHAT}%00"), ("POST", f"{CHAT}\\..\\key"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_route_that_no_session_needs_is_refused(hand: AtHand, lent: Lent, method: str, path: str) -> None:
    status, said = ask(hand, path, lent.headers, SAID if method != "GET" else None, method)
    assert status in (400, 401, 404, 405)
    assert b"litellm" not in said.lower()


def test_method_override_reaches_no_other_route(hand: AtHand, lent: Lent) -> None:
    headers = {**lent.headers, "X-HTTP-Method-Override": "DELETE", "X-Original-URL": "/key/generate"}
    status, said = ask(hand, CHAT, headers)
    assert (status, json.loads(said)["choices"][0]["message"]["content"]) == (200, "hello")


class Trap(BaseHTTPRequestHandler):
    """A server that a client would like the proxy to call."""

    caught: list[str]

    def do_POST(self) -> None:
        self.caught.append(self.path)
        self.send_error(500)

    do_GET = do_POST


@pytest.fixture
def trap() -> Any:
    Trap.caught = []
    server = HTTPServer(("127.0.0.1", 0), Trap)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()


OTHERS_NAMES: dict[str, dict[str, Any]] = {
    "fallbacks": {"fallbacks": ["echo-chat"]},
    "context-fallbacks": {"context_window_fallbacks": [{"echo": ["echo-chat"]}]},
    "mock": {"mock_response": "spoofed"},
    "mock-tool": {"mock_tool_calls": [{"id": "x"}]},
    "cache": {"cache": {"namespace": "x", "ttl": 600}, "caching": True},
    "tags": {"tags": ["session:other"], "metadata": {"tags": ["x"], "session_id": "s-other"}},
    "session-id": {"litellm_session_id": "s-other", "litellm_trace_id": "s-other", "session_id": "s-other"},
    "user": {"user": "s-other"},
    "key-metadata": {"user_api_key_auth_metadata": {"session_id": "s-other"}, "user_api_key_alias": "s-other"},
    "logging-off": {"no-log": True, "turn_off_message_logging": False},
    "price": {"input_cost_per_token": 0, "output_cost_per_token": 0},
    "deployment": {"specific_deployment": "echo-chat/echo-chat", "model_info": {"id": "echo-chat/echo-chat"}},
    "model-list": {"model_list": [{"model_name": "echo", "litellm_params": {"model": "openai/other"}}]},
    "user-config": {"user_config": {"model_list": [], "router_settings": {}}},
    "guardrails": {"guardrails": ["none"], "disable_global_guardrail": True},
    "custom-provider": {"custom_llm_provider": "anthropic"},
    "unknown-name": {"__proto__": {"admin": True}, "x" * 500: 1},
    "mcp": {"tools": [{"type": "mcp", "server_label": "x", "server_url": "litellm_proxy"}]},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS_NAMES)
def test_parameter_that_would_change_the_answer_or_its_record_is_stripped_and_told(
    hand: AtHand, name: str
) -> None:
    session = hand.session(models=("echo",))
    status, said = ask(hand, CHAT, session.headers, {**SAID, **OTHERS_NAMES[name]})
    assert (status, json.loads(said)["choices"][0]["message"]["content"]) == (200, "hello")
    (row,) = hand.requests(session.id, 1)
    assert (row["status"], row["deployment"], row["cost_source"]) == ("ok", "echo/echo", "config")
    assert row["cost_usd"] > 0
    assert row["changed"]
    assert all(len(told) <= 40 and "proto" not in told for told in row["changed"])


@pytest.mark.parametrize("name", ["api_base", "base_url", "proxy_server_request", "langfuse_host"])
def test_address_that_a_client_names_is_not_called(
    hand: AtHand, lent: Lent, trap: HTTPServer, name: str
) -> None:
    url = f"http://127.0.0.1:{trap.server_port}/v1"
    assert ask(hand, CHAT, lent.headers, {**SAID, name: url, "extra_body": {name: url}})[0] == 200
    assert Trap.caught == []


HEADERS: list[Headers] = [
    {"x-litellm-call-id": "11111111-1111-1111-1111-111111111111"},
    {"x-litellm-session-id": "s-other", "x-litellm-trace-id": "s-other"},
    {"x-litellm-tags": "session:other,free", "x-litellm-spend-logs-metadata": '{"session_id":"s-other"}'},
    {"x-litellm-end-user-id": "s-other", "x-litellm-customer-id": "s-other"},
    {"x-litellm-timeout": "0.001", "x-litellm-num-retries": "5"},
    {"litellm-disable-message-redaction": "true", "litellm-enable-message-redaction": "false"},
    {"x-request-id": "22222222-2222-2222-2222-222222222222", "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"},
]  # fmt: skip


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: next(iter(headers)))
def test_two_requests_with_the_same_claimed_identity_are_two_of_their_own_session(
    hand: AtHand, headers: Headers
) -> None:
    session = hand.session()
    for _ in range(2):
        assert ask(hand, CHAT, {**session.headers, **headers})[0] == 200
    rows = hand.requests(session.id, 2)
    assert len({row["id"] for row in rows}) == len({row["call_id"] for row in rows}) == 2
    assert {row["session_id"] for row in rows} == {session.id}
    claimed = set(headers.values())
    assert not claimed & {str(value) for row in rows for value in row.values()}


def test_last_of_two_equal_names_in_a_body_is_the_one_that_is_judged(hand: AtHand, lent: Lent) -> None:
    body = b'{"model":"echo","model":"echo-chat","messages":[{"role":"user","content":"hello"}]}'
    assert ask(hand, CHAT, lent.headers, body)[0] == 403
    body = b'{"model":"echo-chat","model":"echo","messages":[{"role":"user","content":"hello"}]}'
    session = hand.session(models=("echo",))
    assert ask(hand, CHAT, session.headers, body)[0] == 200
    assert [row["deployment"] for row in hand.requests(session.id, 1)] == ["echo/echo"]


def test_response_id_forged_for_another_deployment_leads_nowhere(hand: AtHand) -> None:
    session = hand.session(models=("echo",))
    for deployment in ("echo-chat/echo-chat", "echo-messages/echo-messages"):
        told = f"litellm:custom_llm_provider:openai;model_id:{deployment};response_id:resp_1"
        forged = "resp_" + base64.b64encode(told.encode()).decode()
        ask(
            hand,
            "/v1/responses",
            session.headers,
            {"model": "echo", "input": "hi", "previous_response_id": forged},
        )
    for row in hand.requests(session.id, 2):
        assert row["deployment"] in ("echo/echo", None)


def test_response_of_another_session_or_model_is_not_continued_by_it(hand: AtHand) -> None:
    first, second = hand.session(models=("echo", "echo-chat")), hand.session(models=("echo",))
    said = {"model": "echo-chat", "input": "hello"}
    id = json.loads(ask(hand, "/v1/responses", first.headers, said)[1])["id"]
    follow = {"model": "echo", "input": "and?", "previous_response_id": id}
    assert ask(hand, "/v1/responses", first.headers, follow)[0] == 200
    assert ask(hand, "/v1/responses", second.headers, follow)[0] == 403
    assert [row["deployment"] for row in hand.requests(first.id, 2)] == ["echo-chat/echo-chat", "echo/echo"]
    assert [row["status"] for row in hand.requests(second.id, 1)] == ["error"]


def test_client_that_asks_for_retries_gets_one_try(hand: AtHand) -> None:
    session = hand.session()
    body = {**SAID, "messages": [{"role": "user", "content": "hello"}], "num_retries": 3, "max_retries": 3}
    hand.upstream.play(FAILS)
    try:
        before = hand.upstream.seen[-1] if hand.upstream.seen else None
        assert ask(hand, CHAT, session.headers, body)[0] == 500
        tries = list(hand.upstream.seen)[
            (list(hand.upstream.seen).index(before) + 1) if before is not None else 0 :
        ]
    finally:
        hand.upstream.play(Script())
    (row,) = hand.requests(session.id, 1)
    assert (row["attempts"], row["status"], row["error_class"]) == (1, "error", "provider_error")
    assert len(tries) == 1


def test_websocket_is_refused(hand: AtHand, lent: Lent) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    for path in ("/v1/realtime?model=echo", "/v1/responses"):
        assert ask(hand, path, {**lent.headers, **upgrade}, None, "GET")[0] in (400, 403, 404)


def test_refused_requests_are_kept_without_a_session(hand: AtHand, lent: Lent) -> None:
    ask(hand, CHAT, bearer("sk-" + "z" * 43))
    hand.requests(lent.id)
    with database.connect(hand.settings.database) as connection:
        query = "SELECT session_id, error_class FROM request WHERE status = 'refused'"
        found = {tuple(row) for row in connection.exec_driver_sql(query)}
    assert (None, "refused_session") in found


def test_model_list_shows_the_session_its_own_models_only(hand: AtHand, lent: Lent) -> None:
    status, said = ask(hand, "/v1/models", lent.headers, None, "GET")
    assert (status, [model["id"] for model in json.loads(said)["data"]]) == (200, ["echo"])
    assert ask(hand, "/v1/models/echo-chat", lent.headers, None, "GET")[0] == 404


def test_auth_refuses_what_did_not_come_through_the_door() -> None:
    hook = pytest.importorskip("melete.gateway.hook", reason="LiteLLM is not installed")
    with pytest.raises(hook.HTTPException) as refused:
        asyncio.run(hook.user_api_key_auth(None, "sk-" + "a" * 43))
    assert refused.value.status_code == 403
