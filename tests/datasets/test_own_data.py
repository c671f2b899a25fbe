"""Own folders and files: kinds, splits drawn by hash, resuming at a position."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from melete import datasets
from melete.errors import DatasetError, UnknownNameError
from melete.settings import Settings

CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_open_of_one_long_text_cuts_it_and_loses_nothing(tmp_path: Path, home: Settings) -> None:
    text = "".join(f"Line {i} of a play.\n" for i in range(20_000))
    path = tmp_path / "play.txt"
    path.write_text(text, encoding="utf-8")
    dataset = datasets.open(str(path), home)
    train, val = list(dataset.documents("train")), list(dataset.documents("val"))
    assert dataset.manifest.kind == "text"
    assert sum(map(len, train + val)) == len(text)
    assert 0.002 < sum(map(len, val)) / len(text) < 0.08
    assert (dataset.count("train"), dataset.count("val")) == (len(train), len(val))


def test_open_of_a_folder_of_sources_gives_one_document_per_file(tmp_path: Path, home: Settings) -> None:
    for i in range(60):
        (tmp_path / f"part{i:02d}.py").write_text(f"x = {i}\n", encoding="utf-8")
    (tmp_path / "picture.bin").write_bytes(b"\0\1\2")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("hidden", encoding="utf-8")
    dataset = datasets.open(tmp_path, home)
    documents = [*dataset.documents("train"), *dataset.documents("val")]
    assert sorted(documents) == sorted(f"x = {i}\n" for i in range(60))
    assert dataset.manifest.known_issues == ["1 other file(s) of the folder are not part of the set."]


@pytest.mark.parametrize(
    ("row", "kind"), [(CHAT, "conversations"), ({"text": "x"}, "text"), ({"question": "x"}, "rows")]
)
def test_open_of_json_lines_reads_the_kind_off_the_first_row(
    tmp_path: Path, home: Settings, row: dict[str, object], kind: str
) -> None:
    path = lines(tmp_path / "mine.jsonl", [{**row, "i": i} for i in range(10)])
    dataset = datasets.open(str(path), home)
    assert dataset.manifest.kind == kind
    assert sorted(r["i"] for split in dataset.splits for r in dataset.rows(split)) == list(range(10))


def test_open_of_a_folder_with_train_and_val_files_uses_them(tmp_path: Path, home: Settings) -> None:
    lines(tmp_path / "train.jsonl", [{"text": "a"}, {"text": "b"}])
    lines(tmp_path / "valid.jsonl", [{"text": "c"}])
    dataset = datasets.open(tmp_path, home)
    assert list(dataset.documents("train")) == ["a", "b"]
    assert list(dataset.documents("val")) == ["c"]


def test_open_of_a_folder_that_mixes_kinds_names_a_file_of_each(tmp_path: Path, home: Settings) -> None:
    lines(tmp_path / "chat.jsonl", [CHAT])
    lines(tmp_path / "text.jsonl", [{"text": "a"}])
    with pytest.raises(
        DatasetError, match=r"mixes kinds .*chat\.jsonl is conversations, text\.jsonl is text"
    ):
        datasets.open(tmp_path, home)


def test_val_of_own_rows_does_not_depend_on_their_order(tmp_path: Path, home: Settings) -> None:
    rows: list[dict[str, object]] = [{"text": f"document {i}"} for i in range(400)]
    forward = datasets.open(lines(tmp_path / "a.jsonl", rows), home)
    backward = datasets.open(lines(tmp_path / "b.jsonl", rows[::-1]), home)
    val = list(forward.documents("val"))
    assert val == list(backward.documents("val"))[::-1]
    assert 1 <= len(val) <= 25


def test_open_of_two_documents_keeps_one_on_each_side(tmp_path: Path, home: Settings) -> None:
    dataset = datasets.open(lines(tmp_path / "two.jsonl", [{"text": "a"}, {"text": "b"}]), home)
    assert len(list(dataset.documents("train"))) == len(list(dataset.documents("val"))) == 1


@pytest.mark.parametrize("rows", [[{"text": "a"}], [{"text": "a"}, {"text": "a"}]])
def test_split_of_data_with_one_content_says_what_to_do(
    tmp_path: Path, home: Settings, rows: list[dict[str, object]]
) -> None:
    dataset = datasets.open(lines(tmp_path / "one.jsonl", rows), home)
    with pytest.raises(DatasetError, match="Add more data, or give it files named train and val"):
        list(dataset.documents("train"))


def test_open_of_a_folder_with_an_empty_file_names_it(tmp_path: Path, home: Settings) -> None:
    lines(tmp_path / "train.jsonl", [{"text": "a"}])
    (tmp_path / "val.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"val\.jsonl is empty"):
        datasets.open(tmp_path, home)


@pytest.mark.parametrize("name", ["nothing_here", "./nothing_here", "text_clasic_books"])
def test_open_of_an_unknown_name_or_path_says_so(home: Settings, name: str) -> None:
    with pytest.raises((UnknownNameError, DatasetError), match="There is no"):
        datasets.open(name, home)


def test_documents_of_conversations_are_refused(tmp_path: Path, home: Settings) -> None:
    dataset = datasets.open(lines(tmp_path / "chat.jsonl", [{**CHAT, "i": i} for i in range(9)]), home)
    with pytest.raises(DatasetError, match="holds conversations, not text"):
        next(dataset.documents("train"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"messages": [{"role": "narrator", "content": "x"}]}, "role 'narrator' is not one of"),
        ({"messages": []}, "a conversation needs a non-empty list 'messages'"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"name": "f"}]}]},
            "a tool call needs 'function'",
        ),
        ({**CHAT, "tools": [{"name": "f"}]}, "a tool is"),
        ({"messages": ["Hi"]}, "'str' object has no attribute 'get'"),
    ],
)
def test_bad_conversation_names_file_and_line(
    tmp_path: Path, home: Settings, bad: dict[str, object], message: str
) -> None:
    lines(tmp_path / "train.jsonl", [CHAT, bad])
    lines(tmp_path / "val.jsonl", [CHAT])
    dataset = datasets.open(tmp_path, home)
    with pytest.raises(DatasetError, match=rf"train\.jsonl:2: not a conversation: {message}"):
        list(dataset.conversations("train"))


def test_tool_call_arguments_given_as_an_object_become_text(tmp_path: Path, home: Settings) -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    row = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]}
    lines(tmp_path / "train.jsonl", [row])
    lines(tmp_path / "val.jsonl", [row])
    (read,) = datasets.open(tmp_path, home).conversations("train")
    assert read.turns[1].tool_calls[0].arguments == '{"a": 1}'


@pytest.mark.parametrize("form", ["files", "one long file", "rows"])
def test_shard_read_from_a_position_continues_exactly_there(
    tmp_path: Path, home: Settings, form: str
) -> None:
    if form == "files":
        for i in range(60):
            (tmp_path / f"{i:03d}.txt").write_text(f"document {i}", encoding="utf-8")
    elif form == "one long file":
        (tmp_path / "long.txt").write_text("\n".join(f"row {i}" for i in range(3_000)), encoding="utf-8")
    else:
        lines(tmp_path / "rows.jsonl", [{"text": f"document {i}"} for i in range(60)])
    (shard,) = datasets.open(tmp_path, home).shards("train")
    documents = list(shard.documents())
    for start in (0, 1, 17, len(documents) - 1, len(documents)):
        assert list(shard.documents(start)) == documents[start:]


def test_text_shard_can_go_to_another_process(tmp_path: Path, home: Settings) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"text": f"document {i}"} for i in range(50)])
    (shard,) = datasets.open(path, home).shards("train")
    assert list(pickle.loads(pickle.dumps(shard)).documents()) == list(shard.documents())


def test_fingerprint_changes_with_the_content(tmp_path: Path, home: Settings) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": "b"}])
    before = datasets.open(path, home).fingerprint
    lines(path, [{"text": "a"}, {"text": "bc"}])
    assert datasets.open(path, home).fingerprint != before
