"""Roles on every operation of the whole server, tokens and the audit log over the API; the command line beside it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.openapi.utils import get_openapi
from sqlalchemy import func, select
from starlette.testclient import TestClient

from access_at_hand import BEGUN_S
from melete.access import Role, needed
from melete.api.alone import gated
from melete.api.app import PREFIX, create_app
from melete.errors import ConfigError
from melete.serve.audited import is_change, named
from melete.settings import Settings
from melete.store import audit, database, tokens
from melete.store.audit import AUDIT, Entry

HERE = "http://127.0.0.1:8675"
FILLED = "aaaa"
"""What stands for every parameter of a path: nothing has this id."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of an empty home whose server asks for a token."""
    return Settings.of(tmp_path_factory.mktemp("home"), "s3cret")


@pytest.fixture(scope="module")
def clients(lab: Settings) -> Iterator[dict[str, TestClient]]:
    """One for each role, and nobody, all at one server."""
    gate = gated(lab)
    headers = {"nobody": {}, **{role: bearer(made(lab, role, role)) for role in Role}}
    with TestClient(gate, base_url=HERE):
        yield {
            name: TestClient(
                gate, base_url=HERE, headers=one, follow_redirects=False, raise_server_exceptions=False
            )
            for name, one in headers.items()
        }


@pytest.fixture(scope="module")
def operations(lab: Settings) -> list[tuple[str, str]]:
    """Method and path of every operation of the OpenAPI document, of every page and of every route for models."""
    document = create_app(lab).openapi()
    api = [(method.upper(), PREFIX + path) for path, found in document["paths"].items() for method in found]
    ui = gated(lab)._app._app.routes[-1].app  # type: ignore[attr-defined]
    shown = get_openapi(title="pages", version="1", routes=ui.routes)
    pages = [(method.upper(), path) for path, one in shown["paths"].items() for method in one]
    models = [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/models"),
        ("GET", "/v1/models"),
        ("GET", "/v1/agents"),
    ]
    found = [(method, re.sub(r"\{[^}]*\}", FILLED, path)) for method, path in (*api, *pages, *models)]
    return [one for one in found if one[1] != "/login"]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def made(settings: Settings, name: str, role: str) -> str:
    with database.connect(settings.database) as connection:
        return tokens.make(connection, name, role, by="test", now_s=BEGUN_S)[1]


def test_nobody_gets_401_everywhere(
    clients: dict[str, TestClient], operations: list[tuple[str, str]]
) -> None:
    answered = {one: clients["nobody"].request(*one).status_code for one in operations}
    assert len(answered) > 80
    assert {one: status for one, status in answered.items() if status != 401} == {}


def test_read_token_gets_403_on_every_operation_that_changes_something(
    clients: dict[str, TestClient], operations: list[tuple[str, str]]
) -> None:
    unsafe = [one for one in operations if one[0] not in ("GET", "HEAD", "OPTIONS")]
    assert len(unsafe) > 20
    answered = {one: clients["read"].request(*one).status_code for one in unsafe}
    looks = {one for one in unsafe if not is_change(*one) and one[1].endswith(("/check", "/draft", "/job"))}
    assert {one for one, status in answered.items() if status != 403} == looks


def test_operate_token_gets_403_exactly_where_the_table_asks_for_an_admin(
    clients: dict[str, TestClient], operations: list[tuple[str, str]]
) -> None:
    admin = [one for one in operations if needed(*one) is Role.ADMIN]
    assert {("POST", "/api/v1/tokens"), ("GET", "/api/v1/audit"), ("GET", "/api/v1/tokens")} <= set(admin)
    assert {one: clients["operate"].request(*one).status_code for one in admin} == dict.fromkeys(admin, 403)


def test_read_token_may_look_at_every_list(
    clients: dict[str, TestClient], operations: list[tuple[str, str]]
) -> None:
    lists = [
        path for method, path in operations if method == "GET" and re.fullmatch(r"/api/v1/[a-z-]+", path)
    ]
    lists = [path for path in lists if needed("GET", path) is Role.READ and not path.endswith("/comparisons")]
    assert len(lists) > 15
    assert {path: clients["read"].get(path).status_code for path in lists} == dict.fromkeys(lists, 200)


def test_page_cannot_do_in_process_what_its_visitor_may_not(clients: dict[str, TestClient]) -> None:
    refused = clients["operate"].get("/parts/settings/tokens")
    assert refused.status_code == 403
    assert "needs the role admin" in refused.text


def test_token_made_over_the_api_works_until_it_is_revoked(clients: dict[str, TestClient]) -> None:
    admin = clients["admin"]
    answer = admin.post("/api/v1/tokens", json={"name": "robot", "role": "operate", "days": 1})
    assert answer.status_code == 201
    secret = answer.json()["token"]
    assert re.fullmatch(r"mlt_[\w-]{32}", secret)
    robot = bearer(secret)
    assert clients["nobody"].get("/api/v1/runs", headers=robot).status_code == 200
    listed = {one["name"]: one for one in admin.get("/api/v1/tokens").json()["data"]}
    assert (listed["robot"]["role"], listed["robot"]["created_by"]) == ("operate", "admin")
    assert secret not in json.dumps(listed)
    assert admin.delete("/api/v1/tokens/robot").status_code == 204
    assert clients["nobody"].get("/api/v1/runs", headers=robot).status_code == 401
    assert admin.delete("/api/v1/tokens/robot").status_code == 404
    changes = [
        (one["who"], one["action"], one["target"], one["status"])
        for one in admin.get("/api/v1/audit?who=admin&limit=3").json()["data"]
    ]
    assert changes == [
        ("admin", "token.delete", "robot", 404),
        ("admin", "token.delete", "robot", 204),
        ("admin", "token.create", "robot", 201),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {}, {"name": "x"}, {"name": "x", "role": "king"}, {"name": "", "role": "read"},
        {"name": " ", "role": "read"}, {"name": "x\u0000", "role": "read"}, {"name": "x" * 81, "role": "read"},
        {"name": "x", "role": "read", "days": 0}, {"name": "x", "role": "read", "more": 1},
        {"name": "read", "role": "read"},
    ],
)  # fmt: skip
def test_token_that_cannot_be_made_is_400_in_the_shape_of_the_house(
    clients: dict[str, TestClient], body: dict[str, Any]
) -> None:
    refused = clients["admin"].post("/api/v1/tokens", json=body)
    assert refused.status_code == 400
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


def test_audit_log_comes_in_pages(clients: dict[str, TestClient]) -> None:
    for _ in range(3):
        clients["read"].post("/api/v1/jobs")
    first = clients["admin"].get("/api/v1/audit?who=read&action=job.create&limit=2").json()
    second = (
        clients["admin"]
        .get(f"/api/v1/audit?who=read&action=job.create&limit=2&cursor={first['next_cursor']}")
        .json()
    )
    ids = [one["id"] for one in (*first["data"], *second["data"])]
    assert len(ids) >= 3
    assert ids == sorted(ids, reverse=True)


@pytest.mark.parametrize(
    ("method", "path", "action", "target"),
    [
        ("POST", "/api/v1/jobs", "job.create", ""),
        ("POST", "/jobs/j-1/stop", "job.stop", "j-1"),
        ("PUT", "/api/v1/runs/r-1/note", "run.note", "r-1"),
        ("DELETE", "/api/v1/tokens/laptop", "token.delete", "laptop"),
        ("DELETE", "/api/v1/tokens/sign-ins/ab", "token.delete", "sign-ins/ab"),
        ("POST", "/api/v1/deployments/bot/roll-back", "deployment.roll-back", "bot"),
        ("POST", "/v1/models/a/b/reload", "model.reload", "a/b"),
        ("POST", "/models/deployments/bot/roll-back", "deployment.roll-back", "bot"),
        ("POST", "/models/r:20/deploy", "model.deploy", "r:20"),
        ("POST", "/jobs/j-1/retry/base", "job.retry", "j-1/base"),
        ("POST", "/settings/tokens", "token.create", ""),
        ("POST", "/", "create", ""),
    ],
)
def test_action_is_named_by_its_path(method: str, path: str, action: str, target: str) -> None:
    assert named(method, path) == (action, target)


@pytest.mark.parametrize(
    ("method", "path", "written"),
    [
        ("GET", "/api/v1/runs", False),
        ("POST", "/v1/chat/completions", False),
        ("POST", "/v1/agents/bot/act", False),
        ("POST", "/api/v1/jobs/check", False),
        ("POST", "/v1/agents", True),
        ("POST", "/api/v1/jobs/check/stop", True),
    ],
)
def test_only_changes_are_written_down(method: str, path: str, written: bool) -> None:
    assert is_change(method, path) is written


def test_token_keeps_only_its_hash_and_first_characters(store: Settings) -> None:
    secret = made(store, "laptop", "read")
    with database.connect(store.database) as connection:
        row = connection.execute(select(tokens.TOKEN)).one()._mapping
        found = tokens.by_hash(connection, tokens.hashed(secret))
    assert found is not None
    assert (found.name, row["prefix"]) == ("laptop", secret[:8])
    assert secret not in str(dict(row))


def test_name_is_free_again_when_its_token_is_revoked_or_has_ended(store: Settings) -> None:
    with database.connect(store.database) as connection:
        tokens.make(connection, "one", "read", by="test", now_s=BEGUN_S, days=1)
        with pytest.raises(ConfigError, match="melete token revoke"):
            tokens.make(connection, "one", "read", by="test", now_s=BEGUN_S)
        tokens.make(connection, "one", "read", by="test", now_s=BEGUN_S + tokens.DAY_S)
        tokens.revoke(connection, tokens.named(connection, "one"), BEGUN_S)
        tokens.make(connection, "one", "admin", by="test", now_s=BEGUN_S)
        assert [(token.name, token.role) for token in tokens.listed(connection)] == [("one", "admin")]
        assert len(tokens.listed(connection, revoked=True)) == 3


def test_use_of_a_token_is_written_once_a_minute(store: Settings) -> None:
    secret = made(store, "one", "read")

    def used_at(now_s: float) -> float | None:
        with database.connect(store.database) as connection:
            token = tokens.by_hash(connection, tokens.hashed(secret))
            assert token is not None
            tokens.used(connection, token, now_s)
            again = tokens.by_hash(connection, tokens.hashed(secret))
        return again.last_used_s if again else None

    assert [used_at(BEGUN_S + after_s) for after_s in (0, 59, 60)] == [BEGUN_S, BEGUN_S, BEGUN_S + 60]


def test_revoked_token_ends_its_sign_ins_and_no_others(store: Settings) -> None:
    one, two = made(store, "one", "read"), made(store, "two", "read")
    with database.connect(store.database) as connection:
        cookies = [
            tokens.begin(connection, tokens.hashed(secret), address="::1", browser="x\0y", now_s=BEGUN_S)[1]
            for secret in (one, two)
        ]
        assert tokens.revoke(connection, tokens.named(connection, "one"), BEGUN_S) == 1
        left = [tokens.signed_in(connection, cookie, BEGUN_S) for cookie in cookies]
        assert (left[0], left[1] is not None) == (None, True)
        assert tokens.signed_in(connection, cookies[1], BEGUN_S + tokens.SIGN_IN_S) is None


def test_sign_ins_are_bounded(store: Settings) -> None:
    with database.connect(store.database) as connection:
        for number in range(12):
            tokens.begin(connection, "h", address="::1", browser="", now_s=BEGUN_S + number, most=10)
        kept = tokens.sign_ins(connection, BEGUN_S)
    assert [one.created_s - BEGUN_S for one in kept] == [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]


def test_audit_log_keeps_the_newest_entries(store: Settings) -> None:
    with database.connect(store.database) as connection:
        for number in range(25):
            entry = Entry(
                BEGUN_S, "me", "admin", "bearer", "::1", "POST", "/x\0" * 400, 200, "x.create", str(number)
            )
            audit.write(connection, entry, kept=10)
        assert connection.scalar(select(func.count()).select_from(AUDIT)) == 15
        newest = connection.execute(AUDIT.select().order_by(AUDIT.c.id.desc())).first()
    assert newest is not None
    assert (newest.target, len(newest.path), "\0" in newest.path) == ("24", 500, False)


def test_token_commands_make_list_and_revoke(
    home: Settings, call: Callable[..., tuple[int, str, str]]
) -> None:
    assert "melete token create" in call("token", "list")[1]
    code, secret, said = call("token", "create", "laptop", "--role", "operate", "--days", "2")
    assert (code, bool(re.fullmatch(r"mlt_[\w-]{32}\n", secret)), "not shown again" in said) == (
        0,
        True,
        True,
    )
    assert re.search(r"laptop +operate +mlt_.{4}… .* never +in (2 d|48 h)", call("token", "list")[1])
    assert json.loads(call("token", "list", "--json")[1])[0]["name"] == "laptop"
    code, _, said = call("token", "create", "laptop", "--role", "read")
    assert (code, "There is a token named 'laptop' already" in said) == (2, True)
    assert "opens nothing any more" in call("token", "revoke", "laptop")[1]
    code, _, said = call("token", "revoke", "laptop")
    assert (code, "There is no token named 'laptop'" in said) == (2, True)
    with database.connect(home.database) as connection:
        rows = connection.execute(AUDIT.select().order_by(AUDIT.c.id)).all()
    assert [(row.who, row.action, row.target) for row in rows] == [
        ("command", "token.create", "laptop"),
        ("command", "token.delete", "laptop"),
    ]


def test_open_address_needs_a_token_and_a_named_one_will_do(
    home: Settings, call: Callable[..., tuple[int, str, str]]
) -> None:
    from melete.errors import ServerError
    from melete.serve import listen

    code, _, said = call("serve", "--no-model", "--host", "0.0.0.0", "--port", "0")
    assert (code, "melete token create NAME --role admin" in said) == (8, True)
    made(home, "first", "admin")
    listen.bind("0.0.0.0", 0, home, named=True).close()
    with pytest.raises(ServerError, match="MELETE_TOKEN"):
        listen.bind("0.0.0.0", 0, home)


def test_settings_never_show_the_token(lab: Settings, tmp_path: Path) -> None:
    assert "s3cret" not in repr(replace(lab, home=tmp_path))


@pytest.mark.slow
def test_first_start_for_other_machines_makes_a_token_and_shows_it_once(home: Settings) -> None:
    shown = on_a_terminal("serve", "--no-model", "--host", "0.0.0.0", "--port", "0")
    secret = re.search(r"mlt_[\w-]{32}", shown)
    link = re.search(r"Sign in, once, with (\S+)(/login\?token=\S+)", shown)
    assert secret is not None
    assert link is not None
    with database.connect(home.database) as connection:
        assert [(token.name, token.role) for token in tokens.listed(connection)] == [("first", "admin")]
    again = on_a_terminal("serve", "--no-model", "--host", "0.0.0.0", "--port", "0")
    assert "mlt_" not in again
    assert "Sign in, once, with" in again


def on_a_terminal(*arguments: str) -> str:
    """What a command says on a terminal until it serves; then it is ended."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "melete", *arguments], stdout=theirs, stderr=theirs
    ) as child:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # a terminal that is gone
            while b"Ctrl-C" not in said and (more := os.read(ours, 4_096)):
                said += more
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):
            while os.read(ours, 4_096):
                pass
        os.close(ours)
    return said.decode()


@pytest.mark.slow
def test_real_server_refuses_a_foreign_socket_believes_no_proxy_and_logs_no_token(home: Settings) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    environ = {**os.environ, "MELETE_TOKEN": "s3cret-value"}
    command = [sys.executable, "-m", "melete", "serve", "--no-model", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ
    ) as child:
        assert child.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            said += (line := child.stdout.readline())
            assert line, said
        url = re.findall(r"http://[\d.:]+", said)[0]
        live = f"{url.replace('http', 'ws')}/api/v1/live"
        with httpx.Client(
            base_url=url, headers={"Origin": url, "X-Forwarded-For": "198.51.100.9"}
        ) as browser:
            assert browser.get("/login?token=s3cret-wrong").status_code == 401
            assert browser.get("/login?token=s3cret-value&next=/settings").headers["location"] == "/settings"
            cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
            entries = browser.get("/api/v1/audit").json()["data"]
        assert {one["address"] for one in entries} == {"127.0.0.1"}
        with connect(live, additional_headers=cookie, origin=url) as socket:
            socket.send(json.dumps({"subscribe": ["/api/v1/status"]}))
            assert json.loads(socket.recv(timeout=30))[0] == "/api/v1/status"
        for origin, headers in (("http://evil.example", cookie), (None, cookie), (url, {})):
            with pytest.raises(InvalidStatus) as refused:
                connect(live, additional_headers=headers, origin=origin)
            assert refused.value.response.status_code == 403
        child.send_signal(signal.SIGINT)
        said += child.communicate(timeout=30)[0]
    assert "s3cret" not in said
    assert "Traceback" not in said
