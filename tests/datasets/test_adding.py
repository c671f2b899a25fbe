"""Adding own data, the data card, and `melete data` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from melete import datasets
from melete.cli._root import run
from melete.datasets import adding, card, registry
from melete.errors import DatasetError, StorageError
from melete.settings import Settings


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder with text rows."""
    folder = tmp_path / "My Notes"
    folder.mkdir()
    rows = [json.dumps({"text": f"note {i}"}) for i in range(30)]
    (folder / "notes.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def test_add_copies_the_data_and_keeps_what_was_said_about_it(notes: Path, home: Settings) -> None:
    added = adding.add(notes, home, licence="CC-BY-4.0", source="my desk")
    (notes / "notes.jsonl").unlink()
    dataset = datasets.open("my_notes", home)
    assert dataset.manifest == added
    assert (added.id, added.licence, added.sources[0].repository) == ("my_notes@1", "CC-BY-4.0", "my desk")
    assert len([*dataset.documents("train"), *dataset.documents("val")]) == 30
    assert "my_notes" in datasets.names(home)


def test_add_of_the_same_content_again_names_the_version_that_has_it(notes: Path, home: Settings) -> None:
    adding.add(notes, home)
    with pytest.raises(DatasetError, match="already there as my_notes@1"):
        adding.add(notes, home)


def test_add_of_changed_content_takes_the_next_version_and_keeps_the_old(notes: Path, home: Settings) -> None:
    adding.add(notes, home)
    (notes / "notes.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n', encoding="utf-8")
    assert adding.add(notes, home).id == "my_notes@2"
    assert datasets.open("my_notes", home).manifest.version == "2"
    assert datasets.open("my_notes@1", home).manifest.files[0].rows == 30


def test_add_of_an_existing_version_is_refused(notes: Path, home: Settings) -> None:
    adding.add(notes, home, version="2026-11")
    (notes / "notes.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n', encoding="utf-8")
    with pytest.raises(DatasetError, match="2026-11 exists, and a version is never overwritten"):
        adding.add(notes, home, version="2026-11")


@pytest.mark.parametrize(
    ("name", "message"), [("stdlib", "name of a known dataset"), ("../evil", "not a dataset name")]
)
def test_add_under_a_name_that_cannot_be_used_is_refused(
    notes: Path, home: Settings, name: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        adding.add(notes, home, name=name)


def test_add_of_data_with_a_bad_row_adds_nothing(notes: Path, home: Settings) -> None:
    with (notes / "notes.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"text": 5}\n')
    with pytest.raises(DatasetError, match=r"notes\.jsonl:31"):
        adding.add(notes, home)
    assert registry.added(home) == {}


def test_add_to_a_home_that_cannot_be_written_leaves_nothing(
    notes: Path, tmp_path: Path, home: Settings
) -> None:
    (tmp_path / "home").write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(StorageError, match="was not added"):
        adding.add(notes, home)


def test_card_of_own_data_warns_that_no_licence_is_stated(notes: Path, home: Settings) -> None:
    text = card.render(str(notes), home)
    assert "No licence is stated" in text
    assert "| train |" in text
    assert "note " in text


def test_card_of_a_share_alike_set_says_what_it_asks(home: Settings) -> None:
    text = card.render("chat_sgd", Settings(home=home.home, data=None, database=home.database))
    assert "**CC-BY-SA-4.0.**" in text
    assert "Share-alike: what is derived" in text
    assert "Attribution: name the source" in text


def test_card_of_conversations_counts_turns_and_calls(home: Settings) -> None:
    text = card.render("toolcalls", home)
    assert "| train | 20,000 |" in text
    assert "tool calls to" in text
    assert "calculator({" in text


def test_card_of_a_set_that_is_not_at_hand_still_says_where_it_comes_from(home: Settings) -> None:
    text = card.render("text_openstax", Settings(home=home.home, data=None, database=home.database))
    assert "not on this machine" in text
    assert "github.com/openstax/osbooks-psychology" in text


def test_data_commands_list_add_verify_and_card(
    notes: Path, home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "add", str(notes), "--name", "desk", "--licence", "MIT"]) == 0
    assert "Added desk@1: text, 1 files" in capsys.readouterr().out
    assert run(["data", "list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["desk"]["here"] == listed["stdlib"]["here"] == "yes"
    assert run(["data", "verify", "desk"]) == 0
    assert run(["data", "card", "desk"]) == 0
    assert "# desk@1" in capsys.readouterr().out


def test_data_verify_of_a_changed_file_says_so_and_exits_with_3(
    notes: Path, home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    adding.add(notes, home, name="desk")
    file = home.datasets / "desk" / "1" / "notes.jsonl"
    file.write_bytes(file.read_bytes().replace(b"note 7", b"note 8"))
    assert run(["data", "verify", "desk"]) == 3
    assert "corrupt or another version" in capsys.readouterr().out


def test_data_card_of_an_unknown_name_suggests_the_closest(
    home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "card", "stdlb"]) == 2
    assert "Did you mean 'stdlib'" in capsys.readouterr().err
