"""The gate over named tokens and sign-ins: who passes, who waits, what attacks get, what is written down."""

from __future__ import annotations

import logging
import re
import tracemalloc
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from access_at_hand import HERE, SAME, Clock, Door, bearer
from live_at_hand import served
from melete.api.alone import gated
from melete.serve.asked import same_site
from melete.serve.backoff import LONGEST_S, MOST_ADDRESSES, Failures
from melete.serve.keyring import Keyring
from melete.settings import Settings
from melete.store.tokens import SIGN_IN_S

FAR = "203.0.113.7"
LIVE = f"ws{HERE.removeprefix('http')}/api/v1/live"
EVIL = {"Origin": "http://evil.example"}
PAGE = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}


@pytest.fixture
def free(tmp_path: Path) -> Door:
    """A lab without any token."""
    return Door(Settings.of(tmp_path))


@pytest.fixture
def door(tmp_path: Path) -> Door:
    """A lab that asks for a token."""
    return Door(Settings.of(tmp_path), token="s3cret")


def test_free_lab_lets_this_machine_in_as_admin(free: Door) -> None:
    assert free.client().get("/x").json() == {"name": "local", "role": "admin", "via": "local"}


def test_free_lab_lets_a_program_without_origin_change_things(free: Door) -> None:
    assert free.client().post("/jobs").status_code == 200


def test_whether_something_is_there_can_be_asked_without_getting_it(tmp_path: Path) -> None:
    settings = Settings.of(tmp_path)
    with served(gated(settings), settings) as url, httpx.Client(base_url=url) as client:
        for path in ("/", "/chat", "/api/v1/runs", "/health"):
            asked = client.head(path)
            assert (asked.status_code, asked.content) == (200, b""), path
            assert asked.headers["content-type"] == client.get(path).headers["content-type"]
        assert client.head("/runs/20261120-000000-none-0000").status_code == 404


@pytest.mark.parametrize("address", [FAR, "10.0.0.2", "2001:db8::1"])
def test_free_lab_asks_another_machine_for_a_token(free: Door, address: str) -> None:
    assert free.client(address).get("/x").status_code == 401


def test_free_lab_asks_from_the_first_token_on(free: Door) -> None:
    client = free.client()
    assert client.get("/x").status_code == 200
    secret = free.make("first", "admin")
    free.clock.now_s += 2
    assert client.get("/x").status_code == 401
    assert client.get("/x", headers=bearer(secret)).json()["name"] == "first"


@pytest.mark.parametrize(
    "host", ["http://evil.example", "http://evil.example:8675", "http://127.0.0.1.evil.example"]
)
def test_free_lab_refuses_a_name_that_is_not_of_this_machine(free: Door, host: str) -> None:
    refused = free.client(host=host).get("/x")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "wrong_host")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [EVIL, {"Origin": "null"}, {"Origin": "http://127.0.0.1:3000"}, {"Sec-Fetch-Site": "cross-site"},
     {"Sec-Fetch-Site": "same-site"}],
)  # fmt: skip
def test_free_lab_refuses_pages_of_other_sites(free: Door, method: str, headers: dict[str, str]) -> None:
    assert free.client().request(method, "/x", headers=headers).status_code == 403


def test_link_from_another_site_opens_a_page(free: Door) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert free.client().get("/runs/one", headers=followed).status_code == 200


@pytest.mark.parametrize(("role", "reads", "operates", "rules"), [
    ("read", 200, 403, 403), ("operate", 200, 200, 403), ("admin", 200, 200, 200),
])  # fmt: skip
def test_role_opens_what_the_table_says(door: Door, role: str, reads: int, operates: int, rules: int) -> None:
    client = door.client(**bearer(door.make("one", role)))
    assert client.get("/api/v1/runs").status_code == reads
    assert client.post("/api/v1/jobs").status_code == operates
    assert client.post("/v1/chat/completions").status_code == operates
    for method, path in [
        ("GET", "/api/v1/tokens"), ("POST", "/settings/tokens"), ("GET", "/api/v1/audit"),
        ("POST", "/api/v1/deployments/one/roll-back"), ("POST", "/v1/agents"), ("DELETE", "/api/v1/runs/one"),
    ]:  # fmt: skip
        assert client.request(method, path).status_code == rules, path


def test_refused_role_names_the_one_that_is_needed(door: Door) -> None:
    said = door.client(**bearer(door.make("eye", "read"))).post("/api/v1/jobs").json()["error"]
    assert (said["code"], "needs the role operate" in said["message"]) == ("role", True)


def test_environment_token_is_admin(door: Door) -> None:
    assert door.client(**bearer("s3cret")).get("/x").json() == {
        "name": "environment", "role": "admin", "via": "bearer",
    }  # fmt: skip


@pytest.mark.parametrize("end", ["revoke", "expire"])
def test_token_that_has_ended_opens_nothing_a_second_later(door: Door, end: str) -> None:
    client = door.client(**bearer(door.make("one", "admin", days=1)))
    assert client.get("/x").status_code == 200
    if end == "revoke":
        door.revoke("one")
        door.clock.now_s += 1.1
    else:
        door.clock.now_s += 86_400
    assert client.get("/x").status_code == 401


def test_read_token_in_the_environment_of_the_server_stays_a_read_token(tmp_path: Path) -> None:
    secret = Door(Settings.of(tmp_path)).make("eye", "read")
    assert Door(Settings.of(tmp_path), token=secret).client(**bearer(secret)).post("/x").status_code == 403


def test_sign_in_sets_a_cookie_that_scripts_and_other_sites_do_not_get(door: Door) -> None:
    answer = door.client(**SAME).post("/login", data={"token": "s3cret", "next": "/runs?state=failed"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs?state=failed")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={int(SIGN_IN_S)}"} <= set(cookie.split("; "))
    assert "s3cret" not in cookie
    assert "Secure" not in cookie


def test_cookie_of_a_browser_that_speaks_tls_is_secure(door: Door) -> None:
    client = door.client(host="https://lab.example", Origin="https://lab.example")
    assert "Secure" in client.post("/login", data={"token": "s3cret"}).headers["set-cookie"]


def test_script_signs_in_with_json_and_gets_204(door: Door) -> None:
    client = door.client(Accept="application/json", **SAME)
    assert client.post("/login", json={"token": "wrong"}).json()["error"]["code"] == "invalid_api_key"
    assert client.post("/login", json={"token": "s3cret"}).status_code == 204
    assert client.get("/x").json()["via"] == "cookie"


def test_sign_in_with_a_wrong_token_shows_the_page_again_with_what_is_wrong(door: Door) -> None:
    answer = door.client(Accept="text/html", **SAME).post("/login", data={"token": "wrong"})
    assert (answer.status_code, "That is not a token" in answer.text) == (401, True)
    assert "wrong" not in answer.text.replace("That is", "")


@pytest.mark.parametrize("value", ["s3cret", "x" * 43, "", '"; rm -rf', "\xff"])
def test_cookie_that_was_made_up_opens_nothing(door: Door, value: str) -> None:
    headers = {"cookie": f"melete_8675={value}".encode("latin-1")}
    assert door.client().get("/x", headers=headers).status_code == 401  # type: ignore[arg-type]


def test_cookie_without_a_page_of_ours_changes_nothing(door: Door) -> None:
    client = door.browser("s3cret")
    del client.headers["origin"]
    refused = client.post("/jobs")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "no_origin")
    assert client.post("/jobs", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert client.post("/jobs", headers=EVIL).status_code == 403
    assert client.get("/jobs").status_code == 200


def test_token_in_the_header_needs_no_origin_and_may_have_any(door: Door) -> None:
    client = door.client(**bearer("s3cret"))
    assert client.post("/v1/chat/completions").status_code == 200
    assert client.post("/v1/chat/completions", headers={"Origin": "app://desktop"}).status_code == 200


def test_two_labs_on_one_machine_do_not_sign_each_other_out(door: Door) -> None:
    other = TestClient(
        door.gate, base_url="http://127.0.0.1:9000", headers={"Origin": "http://127.0.0.1:9000"}
    )
    names = [
        client.post("/login", data={"token": "s3cret"}, follow_redirects=False)
        .headers["set-cookie"]
        .split("=")[0]
        for client in (door.client(**SAME), other)
    ]
    assert names == ["melete_8675", "melete_9000"]


def test_revoked_token_ends_its_sign_ins_in_the_middle(door: Door) -> None:
    browser = door.browser(door.make("laptop", "operate"))
    assert browser.post("/jobs").status_code == 200
    door.revoke("laptop")
    door.clock.now_s += 1.1
    refused = browser.post("/jobs")
    assert (refused.status_code, refused.headers["x-sign-in"]) == (401, "/login")


def test_other_environment_token_ends_the_sign_ins_of_the_old_one(door: Door) -> None:
    browser = door.browser("s3cret")
    later = Door(door.settings, token="another", clock=door.clock)
    client = later.client()
    client.cookies = browser.cookies
    assert client.get("/x").status_code == 401


def test_sign_in_lasts_from_its_last_use(door: Door) -> None:
    browser = door.browser("s3cret")
    for _ in range(3):
        door.clock.now_s += SIGN_IN_S - 60
        assert browser.get("/x").status_code == 200
    door.clock.now_s += SIGN_IN_S + 1
    assert browser.get("/x").status_code == 401


def test_signing_out_ends_the_sign_in_not_only_the_cookie(door: Door) -> None:
    browser = door.browser("s3cret")
    stolen = dict(browser.cookies)
    assert browser.post("/logout").headers["location"] == "/login"
    thief = door.client()
    thief.cookies.update(stolen)
    assert thief.get("/x").status_code == 401


def test_link_signs_one_browser_in_once_and_leaves_the_address(door: Door) -> None:
    code = door.keys.new_link()
    first = door.client()
    answer = first.get(f"/login?token={code}&next=/chat")
    assert (answer.status_code, answer.headers["location"]) == (303, "/chat")
    assert first.get("/x").json() == {"name": "terminal", "role": "admin", "via": "cookie"}
    assert door.client().get(f"/login?token={code}").status_code == 401


def test_link_that_a_preview_looks_at_is_not_used_up(door: Door) -> None:
    path = f"/login?token={door.keys.new_link()}"
    looked = door.client().head(path)
    assert (looked.status_code, "set-cookie" in looked.headers) == (200, False)
    assert "set-cookie" in door.client().get(path).headers


def test_link_is_no_good_after_a_quarter_of_an_hour(door: Door) -> None:
    code = door.keys.new_link()
    door.clock.now_s += 15 * 60
    assert door.client().get(f"/login?token={code}").status_code == 401


@pytest.mark.parametrize(
    "where",
    ["//evil.example", "/\\evil.example", "http://evil.example/", "javascript:alert(1)", "/a\r\nSet-Cookie: x=1",
     "", None, "/" + "a" * 3_000, "/login?next=/login"],
)  # fmt: skip
def test_way_back_that_leads_elsewhere_is_home(where: str | None) -> None:
    assert same_site(where) == "/"


def test_browser_without_a_sign_in_is_sent_to_the_page_with_the_way_back(door: Door) -> None:
    sent = door.client().get("/runs/one?tab=log&step=3", headers=PAGE)
    assert (sent.status_code, sent.headers["location"]) == (
        303,
        "/login?next=%2Fruns%2Fone%3Ftab%3Dlog%26step%3D3",
    )


@pytest.mark.parametrize(
    "headers", [{"HX-Request": "true", "Accept": "text/html"}, {"Accept": "application/json"}]
)
def test_script_without_a_sign_in_is_told_where_to_sign_in(door: Door, headers: dict[str, str]) -> None:
    refused = door.client(**SAME).post("/jobs", headers=headers)
    assert (refused.status_code, refused.headers["x-sign-in"]) == (401, "/login")
    assert refused.json()["error"]["code"] == "invalid_api_key"


def test_form_of_a_browser_without_scripts_and_sign_in_is_told_that_nothing_changed(door: Door) -> None:
    refused = door.client(**SAME).post("/jobs", headers=PAGE)
    assert (refused.status_code, "nothing was changed" in refused.text) == (401, True)


@pytest.mark.parametrize(
    ("headers", "name"), [({}, "local"), (EVIL, None), ({"Origin": "null"}, None), (SAME, "local")]
)
def test_socket_of_a_free_lab_opens_for_its_own_pages(
    free: Door, headers: dict[str, str], name: str | None
) -> None:
    if name is None:
        with (
            pytest.raises(WebSocketDisconnect),
            free.client().websocket_connect(LIVE, headers=headers),
        ):
            pass
    else:
        with free.client().websocket_connect(LIVE, headers=headers) as socket:
            assert socket.receive_text() == name


def test_socket_with_a_cookie_needs_a_page_of_ours(door: Door) -> None:
    browser = door.browser("s3cret")
    with browser.websocket_connect(LIVE) as socket:
        assert socket.receive_text() == "environment"
    for headers in (EVIL, {"Origin": "http://127.0.0.1:3000"}):
        with pytest.raises(WebSocketDisconnect), browser.websocket_connect(LIVE, headers=headers):
            pass
    del browser.headers["origin"]
    with pytest.raises(WebSocketDisconnect), browser.websocket_connect(LIVE):
        pass


def test_socket_without_a_token_is_refused_and_with_one_opens(door: Door) -> None:
    with pytest.raises(WebSocketDisconnect), door.client().websocket_connect(LIVE):
        pass
    secret = door.make("top", "read")
    with door.client().websocket_connect(LIVE, headers=bearer(secret)) as socket:
        assert socket.receive_text() == "top"


def test_open_socket_is_told_when_its_token_is_revoked(door: Door) -> None:
    secret = door.make("top", "read")
    with door.client().websocket_connect(LIVE, headers=bearer(secret)) as socket:
        assert socket.receive_text() == "top"
        socket.send_text("?")
        assert socket.receive_text() == "True"
        door.revoke("top")
        door.clock.now_s += 2
        socket.send_text("?")
        assert socket.receive_text() == "False"


def test_stream_of_events_ends_with_its_token(door: Door) -> None:
    client = door.client(**bearer(door.make("top", "read")))
    looks = 0

    def clock() -> float:
        """Each look at it is a second later; at the tenth, the token is revoked."""
        nonlocal looks
        looks += 1
        if looks == 10:
            door.revoke("top")
        door.clock.now_s += 1
        return door.clock.now_s

    door.gate._clock = clock
    assert client.get("/events").text.startswith("data: more")


def test_wrong_tokens_cost_a_wait_that_grows_and_a_success_forgives(tmp_path: Path) -> None:
    clock = Clock(0.0)
    failures = Failures(clock)
    waits = []
    for _ in range(12):
        failures.fail(FAR)
        waits.append(failures.wait_s(FAR))
        clock.now_s += waits[-1]
    assert waits == [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64]
    assert failures.wait_s("198.51.100.1") == 0
    failures.succeed(FAR)
    failures.fail(FAR)
    assert failures.wait_s(FAR) == 0


def test_wait_has_an_end_and_is_forgotten(tmp_path: Path) -> None:
    clock = Clock(0.0)
    failures = Failures(clock)
    for _ in range(40):
        failures.fail(FAR)
    assert failures.wait_s(FAR) == LONGEST_S
    clock.now_s += 1_000
    failures.fail(FAR)
    assert failures.wait_s(FAR) == 0


def test_failures_of_many_addresses_hold_everybody_up_a_little_and_cost_bounded_memory() -> None:
    clock = Clock(0.0)
    failures = Failures(clock)
    tracemalloc.start()
    for number in range(3 * MOST_ADDRESSES):
        failures.fail(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(failures) == MOST_ADDRESSES
    assert used < 4_000_000
    assert 0 < failures.wait_s("198.51.100.1") <= 5


def test_addresses_of_one_ipv6_network_are_counted_together() -> None:
    failures = Failures(Clock(0.0))
    for number in range(8):
        failures.fail(f"2001:db8:0:1::{number:x}")
    assert failures.wait_s("2001:db8:0:1::ffff") > 0
    assert failures.wait_s("2001:db8:0:2::1") == 0


@pytest.mark.slow
def test_thousand_guesses_are_refused_unseen_and_others_go_on(door: Door) -> None:
    known = door.make("laptop", "operate")
    browser = door.browser("s3cret", address=FAR)
    guesser = door.client(FAR)
    statuses = [guesser.get("/x", headers=bearer(f"guess-{n}")).status_code for n in range(1_000)]
    assert (statuses.count(401), statuses.count(429)) == (6, 994)
    refused = guesser.get("/x", headers=bearer("s3cret"))
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert guesser.post("/login", data={"token": "s3cret"}, headers=SAME).status_code == 429
    assert browser.get("/x").status_code == 200
    assert guesser.get("/x", headers=bearer(known)).status_code == 200
    assert door.client().get("/x", headers=bearer("s3cret")).status_code == 200
    door.clock.now_s += 2
    assert guesser.get("/x", headers=bearer("s3cret")).status_code == 200
    failed = [entry for entry in door.audit() if entry["action"] == "sign-in.failed"]
    assert len(failed) == 6


def test_address_in_a_header_is_not_believed(door: Door) -> None:
    for number in range(8):
        forged = {"X-Forwarded-For": f"198.51.100.{number}", "Forwarded": f"for=198.51.100.{number}"}
        last = door.client(FAR).get("/x", headers={**bearer("wrong"), **forged})
    assert last.status_code == 429
    assert {entry["address"] for entry in door.audit()} == {FAR}


def test_each_change_is_written_down_with_who_and_what_and_no_secret(door: Door) -> None:
    secret = door.make("laptop", "operate")
    browser = door.browser(secret)
    browser.post("/jobs/20261120-x/stop?token=mlt_query", json={"why": "mlt_body"})
    browser.delete("/api/v1/runs/one")
    browser.post("/v1/chat/completions")
    browser.get("/runs")
    door.client(**bearer("wrong")).get("/x")
    seen = [
        (one["who"], one["role"], one["via"], one["action"], one["target"], one["status"])
        for one in door.audit()
    ]
    assert seen == [
        ("laptop", "operate", "cookie", "sign-in.begin", "", 200),
        ("laptop", "operate", "cookie", "job.stop", "20261120-x", 200),
        ("laptop", "operate", "cookie", "run.delete", "one", 403),
        ("", "", "", "sign-in.failed", "", 401),
    ]
    assert not re.search(r"mlt_|wrong|s3cret", str([[*one.values()] for one in door.audit()]))


def test_no_token_reaches_a_log(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = door.make("laptop", "admin")
    door.browser(secret).post("/logout")
    door.client().get(f"/login?token={door.keys.new_link()}")
    door.client(**bearer(secret)).post("/jobs")
    door.client(**bearer("guessed-wrong")).post("/jobs")
    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    assert secret not in ours
    assert "guessed-wrong" not in ours
    assert "token=" not in ours


def broken(folder: Path) -> Settings:
    """Settings whose database is none."""
    folder.mkdir()
    (folder / "melete.db").write_text("this is not a database " * 100)
    return Settings.of(folder)


def test_environment_token_opens_the_lab_while_the_database_is_away(tmp_path: Path) -> None:
    client = Door(broken(tmp_path / "home"), token="s3cret").client()
    assert client.get("/x", headers=bearer("s3cret")).status_code == 200
    assert client.post("/v1/chat/completions", headers=bearer("s3cret")).status_code == 200
    named = client.get("/x", headers=bearer("mlt_" + "x" * 32))
    assert (named.status_code, named.headers["retry-after"]) == (503, "2")
    assert client.post("/login", data={"token": "s3cret"}, headers=SAME).status_code == 503


def test_free_lab_lets_nobody_in_while_it_cannot_say_whether_there_are_tokens(tmp_path: Path) -> None:
    client = Door(broken(tmp_path / "home")).client()
    assert client.get("/x").status_code == 503
    assert client.get("/health").status_code == 200


def test_browser_is_told_in_words_that_the_database_is_away(tmp_path: Path) -> None:
    answer = Door(broken(tmp_path / "home")).client().get("/runs", headers=PAGE)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.text.startswith("sign in The database")


def test_secrets_are_compared_without_telling_where_they_differ() -> None:
    """`hmac.compare_digest` decides, and takes any text, also one that is not ASCII."""
    from melete.serve import keyring

    assert keyring.same.__code__.co_names[0] == "hmac"
    assert Keyring("s3crét", None, Clock()).is_environment("s3crét")
    assert not Keyring("s3crét", None, Clock()).is_environment("s3cre\udcff")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/health", 200), ("/login", 200), ("/static/0123456789ab/melete.css", 200),
     ("/static/0123456789ab/shell.js", 401), ("/static/0123456789ab/../shell.js", 401), ("/", 401),
     ("/openapi.json", 401), ("/api/v1/", 401), ("/healthz", 401), ("/login/x", 401), ("//login", 401)],
)  # fmt: skip
def test_only_health_and_the_sign_in_page_with_its_files_are_open(door: Door, path: str, status: int) -> None:
    assert door.client().get(f"{HERE}{path}").status_code == status
