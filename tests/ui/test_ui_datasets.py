"""Pages of datasets, asked in process: what each tab shows, filters in the address, hostile rows as text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from melete.api.whole import mounts
from melete.settings import Settings
from melete.ui.pages import datasets
from pictures_at_hand import IMAGES, add_dataset, add_episodes, add_pictures
from web_at_hand import HOSTILE


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Pages and API over a home with images, episodes and rows that somebody means ill with."""
    folder = tmp_path_factory.mktemp("data")
    home = Settings.of(folder / "home")
    add_pictures(home, folder, caption="number {} " + HOSTILE)
    add_episodes(home, folder)
    call = {"function": {"name": HOSTILE, "arguments": "{}"}}
    rows = [
        {HOSTILE: HOSTILE, "long": "x" * 5_000, "image": "x.png", "nested": {"a": [1, None]}},
        {"messages": [{"role": "user", "content": HOSTILE}, {"role": "assistant", "tool_calls": [call]}]},
        {"messages": "none"},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows * 15).encode()
    values = {"kind": "rows", "splits": {"train": ["rows.jsonl"]}, "description": HOSTILE}
    add_dataset(home, "hostile", {"rows.jsonl": text}, **values)
    app = Starlette(routes=[Mount(path, one) for path, one in mounts(home).items()])
    with TestClient(app) as client:
        yield client


def test_list_shows_what_is_known_and_what_is_here(site: TestClient) -> None:
    page = site.get("/datasets").text
    assert 'href="/datasets/pictures"' in page
    assert "known, not here" in page  # the public ones
    assert "melete data add" in page


def test_list_is_filtered_from_the_address(site: TestClient) -> None:
    page = site.get("/datasets?search=moves&kind=files&at_hand=true").text
    assert 'href="/datasets/moves"' in page
    assert 'href="/datasets/pictures"' not in page
    assert 'value="moves"' in page
    nothing = site.get("/datasets?search=no+such+thing").text
    assert "No dataset fits" in nothing
    assert site.get("/datasets?at_hand=perhaps").status_code == 400


def test_dataset_that_is_not_here_says_how_to_get_it(site: TestClient) -> None:
    page = site.get("/datasets/text_tinyshakespeare").text
    assert "It is not on this machine" in page
    assert "tab=rows" not in page


def test_tabs_are_those_that_the_dataset_has(site: TestClient) -> None:
    assert "tab=episodes" not in site.get("/datasets/pictures").text
    page = site.get("/datasets/moves").text
    assert "tab=episodes" in page
    assert "tab=rows" not in page
    assert 'aria-current="page">Card' in site.get("/datasets/moves?tab=nonsense").text


def test_rows_are_shown_as_what_they_are_and_hostile_ones_as_text(site: TestClient) -> None:
    page = site.get("/datasets/hostile?tab=rows").text
    assert "<script>document" not in page
    assert "&lt;script&gt;" in page
    assert 'class="turn turn-user"' in page
    assert "3,000 more characters" in page.replace("\u202f", ",")
    assert 'src="/api/v1/datasets/hostile/rows/0/image/image"' in page
    assert "cursor=" in page


def test_rows_from_a_place_and_with_a_text(site: TestClient) -> None:
    page = site.get("/datasets/hostile?tab=rows&split=train&start=40").text
    assert 'id="row-40"' in page
    assert 'id="row-39"' not in page
    found = site.get("/datasets/hostile?tab=rows&search=none").text
    assert 'id="row-2"' in found
    assert 'id="row-1"' not in found
    assert "No row of this split has that text" in site.get("/datasets/hostile?tab=rows&search=zebra").text


def test_images_have_their_captions_as_alternative_text(site: TestClient) -> None:
    page = site.get("/datasets/pictures?tab=images").text
    assert 'src="/api/v1/datasets/pictures/images/47"' in page
    assert 'alt="number 47 &lt;img' in page
    assert "<script>document" not in page
    last = site.get(f"/datasets/pictures?tab=images&start={IMAGES - 1}").text
    assert "Next images" not in last


def test_episode_shows_its_frames_and_figures(site: TestClient) -> None:
    assert "alert(1)&lt;/script&gt;" in site.get("/datasets/moves?tab=episodes").text
    page = site.get("/datasets/moves?tab=episodes&episode=2").text
    assert 'data-first="6" data-steps="12"' in page
    assert "action.0 from 12 to 34" in page
    assert "episode=1" in page
    missing = site.get("/datasets/moves?tab=episodes&episode=9")
    assert (missing.status_code, "no episode named" in missing.text) == (404, True)


def test_line_of_a_figure_that_never_changes_or_is_not_finite_is_drawn() -> None:
    flat = datasets._line({"key": "a", "values": [2.0, None, 2.0]})
    assert flat["points"] == "0.00,23.00 100.00,23.00"
    assert datasets._line({"key": "a", "values": [None]})["points"] == ""


def test_styles_and_elements_of_the_pages_are_there(site: TestClient) -> None:
    import re

    page = site.get("/datasets/moves?tab=episodes&episode=0").text
    for href in re.findall(r'(?:href|src)="(/static/[^"]+)"', page):
        assert site.get(href).status_code == 200, href
    assert Path(datasets.__file__).is_file()
