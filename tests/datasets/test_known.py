"""Known public sets: every manifest is sound, and where the data is at hand it is what the manifest says."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from melete import datasets, find
from melete.datasets import registry
from melete.datasets.dataset import Dataset
from melete.errors import DatasetError, UnknownNameError
from melete.settings import Settings

KNOWN = find.names(registry.KNOWN, ".yaml")
ADAPTED = sorted(
    name for name in KNOWN if "\nadapter: " in find.path(registry.KNOWN, name, "dataset").read_text("utf-8")
)


def opened(name: str, home: Settings) -> Dataset:
    try:
        return datasets.open(name, home)
    except DatasetError as error:
        pytest.skip(f"not at hand: {error.found}")


@pytest.mark.parametrize("name", KNOWN)
def test_manifest_of_a_known_set_is_whole(name: str, home: Settings) -> None:
    manifest = datasets.describe(name, home)
    assert manifest.name == name
    assert manifest.licence
    assert manifest.sources
    assert manifest.how_to_get.endswith(".")
    assert all(source.repository.startswith("github.com/") and source.commit for source in manifest.sources)
    listed = {entry.path for entry in manifest.files}
    assert {path for paths in manifest.splits.values() for path in paths} <= listed
    assert manifest.adapter is None or manifest.adapter in find.names(registry.ADAPTERS)


@pytest.mark.parametrize("name", KNOWN)
def test_files_of_a_known_set_at_hand_match_their_checksums_and_counts(name: str, home: Settings) -> None:
    dataset = opened(name, home)
    for entry in dataset.manifest.files:
        assert dataset.path(entry.path).is_file()
    for split, paths in dataset.manifest.splits.items():
        rows = [dataset.manifest.entry(path).rows for path in paths]
        if None not in rows and not dataset.manifest.drawn_val and dataset.manifest.adapter is None:
            assert (
                sum(1 for _ in dataset.rows(split)) == sum(row or 0 for row in rows) == dataset.count(split)
            )


@pytest.mark.parametrize("name", ADAPTED)
def test_conversations_of_a_known_set_end_with_an_answer_and_call_only_offered_tools(
    name: str, home: Settings
) -> None:
    dataset = opened(name, home)
    for number, conversation in enumerate(dataset.conversations("train")):
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in conversation.tools}
        assert conversation.turns[-1].role == "assistant"
        assert not conversation.turns[-1].tool_calls
        answered = {turn.tool_call_id for turn in conversation.turns if turn.role == "tool"}
        for call in (call for turn in conversation.turns for call in turn.tool_calls):
            assert set(json.loads(call.arguments)) <= set(offered[call.name]["properties"])
            assert call.id in answered
        if number == 400:
            break


def test_chat_star_filters_become_readable_arguments(home: Settings) -> None:
    dataset = opened("chat_star", home)
    calls = (call for c in dataset.conversations("train") for turn in c.turns for call in turn.tool_calls)
    found: dict[str, Any] = next(
        arguments
        for call in calls
        if isinstance((arguments := json.loads(call.arguments)).get("Price"), dict)
    )
    assert set(found["Price"]) <= {"at_most", "at_least", "less_than", "greater_than"}


def test_chat_sgd_test_split_has_services_that_train_lacks(home: Settings) -> None:
    dataset = opened("chat_sgd", home)
    services = {
        split: {service for row in dataset.rows(split) for service in row["services"]}
        for split in ("train", "test")
    }
    assert services["test"] - services["train"]


def test_open_of_a_known_set_that_is_not_at_hand_says_where_to_get_it(home: Settings) -> None:
    elsewhere = Settings(home=home.home, data=None, database=home.database)
    with pytest.raises(DatasetError) as caught:
        datasets.open("text_openstax", elsewhere)
    message = str(caught.value)
    assert "not on this machine" in message
    assert "github.com/openstax/osbooks-psychology" in message
    assert "CC-BY-4.0" in message
    assert "MELETE_DATA" in message
    assert datasets.default_text(elsewhere) == "stdlib"


def test_open_of_a_version_that_does_not_exist_lists_those_that_do(home: Settings) -> None:
    with pytest.raises(DatasetError, match=r"no version '7'\.\nVersions: 1\."):
        datasets.open("text_openstax@7", home)


def test_open_of_a_misspelt_name_suggests_the_closest(home: Settings) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'text_tinyshakespeare'"):
        datasets.open("text_tinyshakespear", home)


@pytest.fixture
def copied(tmp_path: Path, home: Settings) -> tuple[Settings, Path]:
    """A writable copy of a known set, and its only file."""
    source = opened("text_tinyshakespeare", home).path("input.txt")
    target = tmp_path / "data" / "text_tinyshakespeare" / "input.txt"
    target.parent.mkdir(parents=True)
    shutil.copyfile(source, target)
    return Settings(home=home.home, data=tmp_path / "data", database=home.database), target


def test_missing_shard_is_named_with_the_next_step(copied: tuple[Settings, Path]) -> None:
    settings, file = copied
    file.unlink()
    dataset = datasets.open("text_tinyshakespeare", settings)
    with pytest.raises(DatasetError, match=r"input\.txt is missing"):
        dataset.shards("train")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "found 1,115,393 bytes, expected 1,115,394"),
        (lambda data: b"X" + data[1:], "sha256"),
    ],
)
def test_corrupt_shard_says_what_was_found_and_expected(
    copied: tuple[Settings, Path], damage: Any, message: str
) -> None:
    settings, file = copied
    list(datasets.open("text_tinyshakespeare", settings).documents("val"))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DatasetError, match=message):
        datasets.open("text_tinyshakespeare", settings).shards("train")


def test_checksum_is_remembered_until_the_file_changes(copied: tuple[Settings, Path]) -> None:
    settings, file = copied
    datasets.open("text_tinyshakespeare", settings).shards("train")
    stat = file.stat()
    file.write_bytes(b"Y" + file.read_bytes()[1:])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    datasets.open("text_tinyshakespeare", settings).shards("train")  # same size and time: not hashed again
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(DatasetError, match="corrupt"):
        datasets.open("text_tinyshakespeare", settings).shards("train")


def test_damaged_memory_of_checksums_is_no_error(copied: tuple[Settings, Path]) -> None:
    settings, _ = copied
    settings.datasets.mkdir(parents=True, exist_ok=True)
    (settings.datasets / ".verified.json").write_text('{"half', encoding="utf-8")
    assert datasets.open("text_tinyshakespeare", settings).count("val") >= 1
