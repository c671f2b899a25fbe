"""Typed files: what is read, what is refused, and that a shelf finds the user's file before the one that ships."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from melete import documents
from melete.documents import Shelf
from melete.errors import ConfigError, UnknownNameError


class Wheel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    spokes: int


class Cart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = ""
    api_key: str = ""
    wheels: list[Wheel] = []
    size: int = 1


def checked(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "cart.yaml"
    path.write_text(text, encoding="utf-8")
    document, problems = documents.check(path, Cart, "cart", name="cart")
    assert (document is None) == bool(problems)
    return [str(problem).removeprefix(f"{path}:") for problem in problems]


def test_check_of_a_good_file_fills_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "cart.yaml").write_text("size: 3\nwheels: [{spokes: 8}]\n")

    document, problems = documents.check(tmp_path / "cart.yaml", Cart, "cart", name="cart")

    assert problems == []
    assert document is not None
    assert document.record == Cart(name="cart", size=3, wheels=[Wheel(spokes=8)])


def test_check_of_a_file_with_many_problems_tells_all_with_line_and_key(tmp_path: Path) -> None:
    assert checked(tmp_path, "size: many\nwheels:\n  - spokes: 8\n  - {spokse: 9}\ncolour: red\n") == [
        "4: wheels.1.spokse: unknown key. Did you mean 'spokes'? Known: spokes.",
        "5: colour: unknown key. Known: api_key, name, size, wheels.",
        "4: wheels.1.spokes: field required.",
        "1: size: input should be a valid integer; found 'many'.",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: other\n", "1: name: 'other' is not the name of the file."),
        ("size: 1\nsize: 2\n", "2: size: stands twice, first in line 1."),
        ("", "1: the cart is empty."),
        ("- a\n", "1: config: input should be a valid dictionary"),
        ("size: 2026-01-01\n", "1: size: input should be a valid integer"),
        ("size: !!python/name:os.system\n", "1: not YAML: "),
        ("name: &a [*a]\n", "1: not a cart: an alias stands inside its anchor."),
        ("[" * 5000 + "]" * 5000, "1: the cart is nested too deeply."),
    ],
)
def test_check_of_a_bad_file_names_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    assert checked(tmp_path, text)[0].startswith(said)


def test_check_of_aliases_that_multiply_is_refused_before_they_are_written_out(tmp_path: Path) -> None:
    lines = ["a: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{'abcdefghij'[n]}{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]

    assert "aliases written out" in checked(tmp_path, "\n".join(lines))[0]


def test_check_of_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    assert "larger than" in checked(tmp_path, "# " + "x" * documents.LARGEST_BYTES)[0]


def test_check_of_a_secret_of_the_wrong_type_does_not_repeat_it(tmp_path: Path) -> None:
    assert checked(tmp_path, "api_key: 123456789\n") == ["1: api_key: input should be a valid string."]


@given(st.text(alphabet=st.sampled_from("name: size-[]{}&*!?'\"|>\n\t #,@12.<=\x00é"), max_size=60))
@settings(deadline=None, max_examples=150)
def test_check_of_any_text_is_a_document_or_problems(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        checked(Path(folder), text)


def test_shelf_names_are_sorted_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.json", ".hidden.yaml", "_private.yaml", "note.txt"):
        (tmp_path / name).write_text("size: 1\n")

    assert Shelf("cart", Cart, tmp_path).names() == ["a", "b"]


def test_shelf_read_of_an_unknown_name_lists_the_known_and_says_where_to_put_it(tmp_path: Path) -> None:
    (tmp_path / "blue.yaml").write_text("size: 1\n")

    with pytest.raises(UnknownNameError, match="Did you mean 'blue'") as caught:
        Shelf("cart", Cart, tmp_path).read("bleu")

    assert "Put it into" in str(caught.value)


def test_shelf_read_of_a_bad_file_says_how_many_problems_follow(tmp_path: Path) -> None:
    (tmp_path / "blue.yaml").write_text("size: x\ncolour: red\n")

    with pytest.raises(ConfigError, match="1 more problem in this file"):
        Shelf("cart", Cart, tmp_path).read("blue")


def test_shelf_read_of_a_name_with_a_space_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a b.yaml").write_text("size: 1\n")

    with pytest.raises(ConfigError, match="cannot be a name"):
        Shelf("cart", Cart, tmp_path).read("a b")
