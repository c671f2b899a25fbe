"""The shell of the pages, asked in process: headers, navigation, search, static files."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from melete import find
from melete.api.whole import mounts
from melete.settings import Settings
from melete.ui import assets, render
from melete.ui.app import create_app
from runs_at_hand import fill_runs


@pytest.fixture(scope="module")
def home_at_hand(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An empty home for all tests of this file."""
    return Settings.of(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def site(home_at_hand: Settings) -> Iterator[TestClient]:
    """Pages and API over a home, without a gate."""
    app = Starlette(routes=[Mount(path, one) for path, one in mounts(home_at_hand).items()])
    with TestClient(app) as client:
        yield client


def test_page_has_a_policy_without_inline_scripts(site: TestClient) -> None:
    answer = site.get("/")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script>|<style|\sstyle=|\son[a-z]+=", answer.text)


def test_page_is_compressed_and_asked_for_each_time(site: TestClient) -> None:
    answer = site.get("/")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["cache-control"] == "private, no-cache"


def test_navigation_marks_where_one_is(site: TestClient) -> None:
    current = re.findall(r'<a href="([^"]+)"[^>]* aria-current="page"', site.get("/").text)
    assert current == ["/"]


def test_unknown_page_is_said_in_the_shell_and_as_a_fragment_without_it(site: TestClient) -> None:
    whole = site.get("/nothing<here>")
    assert (whole.status_code, "There is no page at /nothing&lt;here&gt;" in whole.text) == (404, True)
    assert "<html" in whole.text
    part = site.get("/parts/nothing")
    assert (part.status_code, "<html" in part.text) == (404, False)


def test_refusal_of_the_api_keeps_status_and_message(site: TestClient) -> None:
    refused = site.get("/runs/20261120-000000-none-0000")
    assert refused.status_code == 404
    assert 'role="alert"' in refused.text


def test_palette_offers_pages_and_commands_without_words(site: TestClient) -> None:
    text = site.get("/parts/palette").text
    assert 'data-href="/"' in text
    assert 'data-action="dark"' in text


def test_palette_says_what_it_did_not_find_as_text(site: TestClient) -> None:
    text = site.get("/parts/palette", params={"q": "<b>x</b>"}).text
    assert "&lt;b&gt;x&lt;/b&gt;" in text


def test_search_finds_runs_by_name_and_by_id(site: TestClient, home_at_hand: Settings) -> None:
    first, second = fill_runs(home_at_hand)
    assert f'href="/runs/{second}"' in site.get("/search", params={"q": "secon"}).text
    assert f'href="/runs/{first}"' in site.get("/search", params={"q": first}).text


def test_static_file_is_immutable_under_its_hash_only(site: TestClient) -> None:
    fresh = site.get(assets.url("melete.css"))
    assert "immutable" in fresh.headers["cache-control"]
    assert site.get("/static/0123456789ab/melete.css").headers["cache-control"] == "no-cache"
    assert site.get(f"/static/{assets.version()}/../app.py").status_code == 404


def test_static_file_is_compressed_for_who_takes_it(site: TestClient) -> None:
    packed = site.get(assets.url("melete.css"))
    assert packed.headers["content-encoding"] == "gzip"
    plain = site.get(assets.url("melete.css"), headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == packed.content == (assets.STATIC / "melete.css").read_bytes()
    again = site.get(assets.url("melete.css"), headers={"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_changed_file_changes_the_hash_of_all(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("1;" * 600)
    tree = assets.Tree(tmp_path, look_s=0)
    before = tree.current()
    asset = tree.asset("a.js")
    assert asset is not None
    assert asset.packed is not None
    assert gzip.decompress(asset.packed) == asset.body
    (tmp_path / "a.js").write_text("2;" * 700)
    assert tree.current() != before
    assert tree.asset("b.js") is None


@pytest.mark.parametrize(
    ("passed_s", "said"), [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (7_199, "1 h"), (200_000, "2 d")]
)
def test_age_is_said_in_one_unit(passed_s: float, said: str) -> None:
    assert render.ago(1_000.0, 1_000.0 + passed_s) == said
    assert render.ago(None) == "–"


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (1234567, "1\u202f234\u202f567"), (14450.4, "14\u202f450"), (0.000123456, "0.0001235"),
     (float("nan"), "nan"), (float("inf"), "inf"), (True, "True"), (2.0, "2")],
)  # fmt: skip
def test_number_is_said_with_few_digits(value: object, said: str) -> None:
    assert render.number(value) == said


def test_figures_that_people_watch_come_first() -> None:
    last = {
        "step": 3,
        "time_s": 9.0,
        "tokens_per_s": 7.0,
        "norm": 0.1,
        "loss": 2.0,
        "word": "x",
        "val_bpb": 1.0,
    }
    assert [name for name, _ in render.headline(last, 4)] == ["loss", "val_bpb", "tokens_per_s", "norm"]


def test_modules_that_a_script_imports_are_asked_for_at_once(tmp_path: Path, site: TestClient) -> None:
    (tmp_path / "el").mkdir()
    (tmp_path / "el" / "a.js").write_text('import { b } from "../b.js";\nimport("./later.js");\n')
    (tmp_path / "b.js").write_text('import {\n  c,\n} from "./el/c.js";\nexport * from "./el/a.js";')
    (tmp_path / "el" / "c.js").write_text("")
    assert assets.Tree(tmp_path).imports("el/a.js") == ["b.js", "el/c.js"]
    preloaded = re.findall(r'modulepreload" href="[^"]*/([\w.-]+)"', site.get("/").text)
    assert {"ask.js", "live.js", "keys.js", "drafts.js"} <= set(preloaded)


def test_keys_and_paths_of_pages_are_their_own(site: TestClient) -> None:
    pages = [find.load("melete.ui.pages", name, "page").PAGE for name in find.names("melete.ui.pages")]
    keys = [page.key for page in pages if page.key and page.order is not None]
    assert len(set(keys)) == len(keys)
    assert len({page.path for page in pages}) == len(pages)
    assert all(page.summary.endswith(".") for page in pages)


def test_icons_that_templates_and_pages_name_are_drawn() -> None:
    templates = Path(render.__file__).with_name("templates")
    text = "".join(file.read_text(encoding="utf-8") for file in templates.rglob("*.html"))
    actions = re.findall(r'"[a-z]+": \("[A-Z][a-z]+", "([a-z]+)"', text)
    icons = [find.load("melete.ui.pages", name, "page").PAGE.icon for name in find.names("melete.ui.pages")]
    named = {*re.findall(r'icon\("([a-z]+)"\)', text), *actions, *icons}
    assert {"pause", "home"} <= named <= set(re.findall(r'id="i-([a-z]+)"', text))


def test_home_shows_a_run_that_has_no_figure_yet(site: TestClient, home_at_hand: Settings) -> None:
    run = {"id": "begun", "name": "begun", "step_name": None, "process": "trial.count", "last": {}}
    status = site.get("/api/v1/status").json() | {"running": [run]}

    async def begun(scope: Scope, receive: Receive, send: Send) -> None:
        told = (status, 200) if scope["path"].endswith("/status") else ({"error": {"message": "None."}}, 404)
        await JSONResponse(*told)(scope, receive, send)

    with TestClient(create_app(home_at_hand, begun)) as client:
        answer = client.get("/")
    assert (answer.status_code, "<span>starting</span>" in answer.text) == (200, True)


def test_page_whose_api_breaks_says_so_in_the_shell(home_at_hand: Settings) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a secret of the inside")

    with TestClient(create_app(home_at_hand, broken), raise_server_exceptions=False) as client:
        answer = client.get("/")
    assert (answer.status_code, "Try again" in answer.text) == (500, True)
    assert "a secret" not in answer.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_refusal_for_now_can_be_tried_again(home_at_hand: Settings) -> None:
    async def away(scope: Scope, receive: Receive, send: Send) -> None:
        said = {"error": {"message": "The database is away.\nIt is tried again by itself.", "code": "away"}}
        await JSONResponse(said, 503)(scope, receive, send)

    with TestClient(create_app(home_at_hand, away)) as client:
        answer = client.get("/", params={"a": '"b"'})
    assert answer.status_code == 503
    assert "The database is away." in answer.text
    assert '<a href="/?a=%22b%22">Try again</a>' in answer.text
