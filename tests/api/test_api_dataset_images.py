"""Images, episodes and images of rows over the API: the right pixels, by cursor and search; torn and hostile files."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from melete.api import frames
from melete.api.app import create_app
from melete.settings import Settings
from pictures_at_hand import (
    IMAGES,
    LENGTHS,
    SIDE,
    add_dataset,
    add_episodes,
    add_pictures,
    arrays,
    colour,
)

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with images and episodes."""
    folder = tmp_path_factory.mktemp("pictures")
    made = Settings.of(folder / "home")
    add_pictures(made, folder)
    add_episodes(made, folder)
    return made


@pytest.fixture(scope="module")
def client(lab: Settings) -> Iterator[TestClient]:
    """Asks the API over it."""
    with TestClient(create_app(lab), raise_server_exceptions=False) as made:
        yield made


def pixels(answer: Any) -> np.ndarray[Any, Any]:
    """The image of an answer."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text[:200]
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_dataset_says_how_many_images_and_episodes_it_has(client: TestClient) -> None:
    found = client.get("/datasets/pictures").json()
    assert (found["images"], found["episodes"]) == (IMAGES, 0)
    found = client.get("/datasets/moves").json()
    assert (found["images"], found["episodes"]) == (sum(LENGTHS), len(LENGTHS))
    assert client.get("/datasets/stdlib").json()["images"] == 0


def test_images_are_listed_with_captions_by_cursor_search_and_start(client: TestClient) -> None:
    first = client.get("/datasets/pictures/images", params={"limit": 40}).json()
    rest = client.get(
        "/datasets/pictures/images", params={"limit": 40, "cursor": first["next_cursor"]}
    ).json()
    found = [*first["data"], *rest["data"]]
    assert [one["index"] for one in found] == list(range(IMAGES))
    assert found[7]["caption"] == "number 7"
    some = client.get("/datasets/pictures/images", params={"search": "NUMBER 3"}).json()["data"]
    assert [one["index"] for one in some] == [3, *range(30, 40)]
    from_50 = client.get("/datasets/pictures/images", params={"start": 50}).json()["data"]
    assert from_50[0]["index"] == 50


@pytest.mark.parametrize("index", [0, 59, 3, 31])
def test_image_is_the_one_of_its_number_in_any_order(client: TestClient, index: int) -> None:
    found = pixels(client.get(f"/datasets/pictures/images/{index}"))
    assert found.shape == (SIDE, SIDE, 4)
    assert tuple(found[0, 0]) == tuple(found[-1, -1]) == colour(index)


def test_frames_without_captions_are_listed_by_number(client: TestClient) -> None:
    page = client.get("/datasets/moves/images", params={"limit": 10, "start": 3}).json()
    assert [one["index"] for one in page["data"]] == list(range(3, 13))
    assert page["data"][0]["caption"] is None
    assert client.get(page["data"][0]["image"]).status_code == 200


def test_episodes_are_listed_with_label_and_strip(client: TestClient) -> None:
    page = client.get("/datasets/moves/episodes", params={"limit": 2}).json()
    assert [(one["label"], one["steps"], one["first"]) for one in page["data"]] == [
        ("push", 5, 0),
        ("pull", 1, 5),
    ]
    last = client.get("/datasets/moves/episodes", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert (last["data"][0]["first"], last["next_cursor"]) == (6, None)
    strip = pixels(client.get(last["data"][0]["strip"]))
    assert strip.shape == (SIDE, 8 * SIDE, 3)
    assert (strip[0, 0, 0], strip[0, -1, 0]) == (6, 17)  # its first and its last frame


def test_episode_has_the_figures_of_its_own_steps(client: TestClient) -> None:
    found = client.get("/datasets/moves/episodes/2").json()
    assert {one["key"]: one["values"][:2] for one in found["figures"]} == {
        "action.0": [12.0, 14.0],
        "action.1": [13.0, 15.0],
    }
    assert len(found["figures"][0]["values"]) == LENGTHS[2]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/datasets/pictures/images/60", 404),
        ("/datasets/pictures/images/-1", 400),
        ("/datasets/moves/episodes/3", 404),
        ("/datasets/moves/episodes/3/strip", 404),
        ("/datasets/pictures/episodes/0", 404),
        ("/datasets/stdlib/images", 400),
        ("/datasets/pictures/images?cursor=zz", 400),
        ("/datasets/pictures/rows/0/image/caption", 400),
        ("/datasets/pictures/rows/0/image/none", 404),
        ("/datasets/pictures/rows/999/image/caption", 404),
    ],
)
def test_image_that_is_none_is_refused(client: TestClient, path: str, status: int) -> None:
    assert client.get(path).status_code == status


@given(
    st.integers(1, 12).flatmap(
        lambda width: st.tuples(
            st.just(width), st.integers(1, 12), st.sampled_from([1, 3, 4]), st.integers(0, 2**32 - 1)
        )
    )
)
def test_png_holds_the_very_pixels(shape: tuple[int, int, int, int]) -> None:
    width, height, channels, seed = shape
    made = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    read = np.asarray(Image.open(io.BytesIO(frames.png(made))))
    assert np.array_equal(read.reshape(made.shape), made)


def test_rows_carry_images_as_files_of_the_set_or_as_data(home: Settings, tmp_path: Path) -> None:
    picture = frames.png(np.full((9, 9, 3), 200, np.uint8))
    (tmp_path / "secret.png").write_bytes(picture)
    rows = [
        {"picture": "one.png"},
        {"inner": {"picture": "data:image/png;base64," + base64.b64encode(picture * 400).decode()}},
        {"picture": "../../../secret.png"},
        {"picture": str(tmp_path / "secret.png")},
        {"picture": "data:text/html;base64,PHNjcmlwdD4="},
        {"picture": "data:image/png;base64,not base64"},
        {"picture": 7},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    files = {"rows.jsonl": text, "one.png": picture}
    add_dataset(home, "carriers", files, kind="rows", splits={"train": ["rows.jsonl"]})
    with TestClient(create_app(home), raise_server_exceptions=False) as client:
        at = "/datasets/carriers/rows/{}/image/{}".format
        assert client.get(at(0, "picture")).content == picture
        assert client.get(at(1, "inner.picture")).content == picture * 400
        assert "sandbox" in client.get(at(0, "picture")).headers["content-security-policy"]
        assert [client.get(at(number, "picture")).status_code for number in range(2, 7)] == [400] * 5


@pytest.mark.parametrize("kind", ["torn", "no zip", "pickled", "wrong ends"])
def test_file_that_is_no_array_is_one_clear_message(home: Settings, tmp_path: Path, kind: str) -> None:
    pixels = np.zeros((4, SIDE, SIDE, 3), np.uint8)
    data = {
        "torn": arrays(tmp_path, img=np.random.default_rng(0).integers(0, 255, pixels.shape, np.uint8))[
            :-600
        ],
        "no zip": b"not a zip file",
        "pickled": arrays(tmp_path, img=np.array([{"a": 1}], dtype=object)),
        "wrong ends": arrays(tmp_path, img=pixels, episode_ends=np.array([3, 2, 9])),
    }[kind]
    add_dataset(home, "broken", {"broken.npz": data})
    with TestClient(create_app(home), raise_server_exceptions=False) as client:
        for path in ("/datasets/broken", "/datasets/broken/images", "/datasets/broken/images/0"):
            answer = client.get(path)
            assert answer.status_code in (200, 400), answer.text
        assert client.get("/datasets/broken/images").status_code == 400


@pytest.mark.slow
def test_card_is_given_at_once_and_whole_when_the_files_were_looked_into(lab: Settings) -> None:
    import time

    with TestClient(create_app(lab)) as client:
        started_s = time.process_time()
        first = client.get("/datasets/stdlib/card").json()
        assert "# stdlib@" in first["markdown"]
        assert time.process_time() - started_s < 5
        while not (found := client.get("/datasets/stdlib/card").json())["complete"]:
            time.sleep(0.2)
        assert "| train |" in found["markdown"]


def test_datasets_are_searched_by_name_and_description(client: TestClient) -> None:
    found = client.get("/datasets", params={"search": "PICTURES", "kind": "files"}).json()["data"]
    assert [one["name"] for one in found] == ["pictures"]
