"""Signing in and the settings page, in process: the whole server without models, its gate, API and pages."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from melete.api.alone import gated
from melete.serve.auth import TokenGate
from melete.settings import Settings
from melete.store.audit import AUDIT
from melete.store.tokens import SIGN_IN, TOKEN
from melete.ui.pages.settings import program

HERE = "http://127.0.0.1:8675"
PAGE = {"Accept": "text/html", "Origin": HERE}
PART = {**PAGE, "HX-Request": "true"}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> TokenGate:
    """A whole server without models that asks for a token."""
    home = tmp_path_factory.mktemp("home")
    return gated(Settings.of(home, "s3cret"))


@pytest.fixture
def browser(gate: TokenGate) -> Iterator[TestClient]:
    """A browser that is signed in with MELETE_TOKEN, at a lab that knows nobody else yet."""
    made = TestClient(gate, base_url=HERE, headers=PAGE, client=("127.0.0.1", 1))
    assert made.post("/login", data={"token": "s3cret"}).url.path == "/"
    yield made
    with gate.keys._connected() as connection:
        for table in (TOKEN, SIGN_IN, AUDIT):
            connection.execute(table.delete())
    gate.keys.forget()


def other(browser: TestClient, secret: str) -> TestClient:
    """Another browser, signed in with another token."""
    made = TestClient(browser.app, base_url=HERE, headers=PAGE, client=("127.0.0.1", 2))
    made.post("/login", data={"token": secret})
    return made


def secret_in(text: str) -> str:
    found = re.search(r'data-copy="(mlt_[\w-]{32})"', text)
    assert found is not None
    return found[1]


def test_sign_in_page_keeps_the_way_back_and_loads_no_script_but_the_theme(gate: TokenGate) -> None:
    with TestClient(gate, base_url=HERE, headers=PAGE) as client:
        page = client.get("/runs?state=failed")
        assert page.url.path == "/login"
        assert 'value="/runs?state=failed"' in page.text
        assert re.findall(r'src="([^"]*\.js)"', page.text)[0].endswith("/theme.js")
        assert page.text.count("<script") == 1
        assert "script-src 'self';" in page.headers["content-security-policy"]
        for file in re.findall(r'(?:src|href)="(/static[^"]+)"', page.text):
            assert client.get(file).status_code == 200, file
        again = client.post("/login", data={"token": "wrong", "next": "/runs?state=failed"})
        assert (again.status_code, "That is not a token" in again.text) == (401, True)
        assert 'value="/runs?state=failed"' in again.text
        assert "wrong" not in again.text
        entered = client.post(
            "/login", data={"token": "s3cret", "next": "/runs?state=failed"}, follow_redirects=False
        )
        assert entered.headers["location"] == "/runs?state=failed"


def test_new_token_is_shown_once_and_lets_its_role_in(browser: TestClient) -> None:
    made = browser.post("/settings/tokens", data={"name": "eye", "role": "read", "days": "7"}, headers=PART)
    secret = secret_in(made.text)
    page = browser.get("/settings").text
    assert secret not in page
    assert secret[:8] in page
    eye = other(browser, secret)
    assert eye.get("/settings").status_code == 200
    assert "These are for admins" in eye.get("/settings").text
    assert eye.get("/parts/settings/tokens").status_code == 403
    assert eye.post("/settings/tokens", data={"name": "mine", "role": "admin"}).status_code == 403


def test_name_that_is_taken_is_said_at_the_form_which_keeps_what_was_typed(browser: TestClient) -> None:
    for _ in range(2):
        said = browser.post("/settings/tokens", data={"name": "eye", "role": "operate"}, headers=PART)
    assert "There is a token named &#39;eye&#39; already" in said.text
    assert 'value="eye"' in said.text
    assert 'value="operate" selected' in said.text


@pytest.mark.parametrize("days", ["soon", "-1", "1e9"])
def test_days_that_are_none_are_refused_at_the_form(browser: TestClient, days: str) -> None:
    said = browser.post("/settings/tokens", data={"name": "eye", "role": "read", "days": days}, headers=PART)
    assert 'role="alert"' in said.text
    assert "mlt_" not in said.text


def test_revoked_token_signs_its_browser_out(browser: TestClient) -> None:
    made = browser.post("/settings/tokens", data={"name": "eye", "role": "read"}, headers=PART)
    eye = other(browser, secret_in(made.text))
    assert eye.get("/settings").url.path == "/settings"
    row = re.search(r'hx-delete="(/settings/tokens/\w+)"', browser.get("/settings").text)
    assert row is not None
    assert browser.delete(row[1], headers=PART).status_code == 204
    assert eye.get("/settings").url.path == "/login"


def test_browser_can_be_signed_out_from_another(browser: TestClient) -> None:
    second = other(browser, "s3cret")
    listed = browser.get("/api/v1/tokens/sign-ins", headers={"Accept": "application/json"}).json()["data"]
    assert [one["token"] for one in listed] == ["environment", "environment"]
    mine = browser.get("/settings").text
    ended = re.findall(r'hx-delete="(/settings/sign-ins/\w+)"', mine)
    assert len(ended) == 2
    for path in ended:
        assert browser.delete(path, headers={"Authorization": "Bearer s3cret"}).status_code == 204
    assert second.get("/settings").url.path == "/login"


def test_audit_log_shows_changes_and_can_be_narrowed(browser: TestClient) -> None:
    browser.post("/settings/tokens", data={"name": "<b>eye</b>", "role": "read"}, headers=PART)
    page = browser.get("/settings?action=token.create").text
    assert "token.create" in page
    assert "&lt;b&gt;eye&lt;/b&gt;" in page
    assert "<b>eye</b>" not in page
    assert "sign-in.begin" not in page
    assert "Nothing like that" in browser.get("/settings?who=nobody").text


def test_free_lab_says_that_nobody_is_asked(home: Settings) -> None:
    with TestClient(gated(home), base_url=HERE, headers=PAGE) as client:
        page = client.get("/settings").text
        assert "everybody on this machine is admin" in page
        assert "No token yet" in page
        assert client.get("/login?next=/settings").url.path == "/settings"


def test_script_with_an_expired_cookie_signs_in_and_repeats_its_request(browser: TestClient) -> None:
    browser.cookies.clear()
    form = {"name": "eye", "role": "read"}
    refused = browser.post("/settings/tokens", data=form, headers=PART)
    assert (refused.status_code, refused.headers["x-sign-in"]) == (401, "/login")
    json = {"Accept": "application/json"}
    assert browser.post("/login", data={"token": "s3cret"}, headers=json).status_code == 204
    assert secret_in(browser.post("/settings/tokens", data=form, headers=PART).text)


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36", "Chrome on Linux"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) Version/26.0 Safari/604.1", "Safari on iPhone"),
        ("python-httpx/0.28.1", "python-httpx/0.28.1"),
        ("", "unknown"),
    ],
)  # fmt: skip
def test_browser_is_named_in_a_few_words(agent: str, said: str) -> None:
    assert program(agent) == said
