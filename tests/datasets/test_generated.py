"""The two sets that need nothing: `stdlib` and `toolcalls`."""

from __future__ import annotations

import gc
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest

from melete import datasets, find
from melete.datasets.dataset import Dataset, Shard
from melete.datasets.generated import toolcalls
from melete.datasets.toolcalls import shapes
from melete.datasets.toolcalls.drawing import Draw
from melete.errors import DatasetError
from melete.llm.calculator import calculate
from melete.records import Conversation, to_json

PYTHON_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
}


@pytest.fixture(scope="module")
def made() -> Dataset:
    return toolcalls.open(train=3_000, val=150)


@pytest.fixture(scope="module")
def rows(made: Dataset) -> dict[str, list[Conversation]]:
    return {split: list(made.conversations(split)) for split in made.splits}


@pytest.mark.slow
def test_stdlib_is_ten_megabytes_of_prose_and_code() -> None:
    dataset = datasets.open("stdlib")
    assert dataset.manifest.bytes > 8_000_000
    documents = list(dataset.shards("train")[0].documents())
    assert sum("import " in document for document in documents) > 30
    prose = [
        document for document in documents if document.partition("\n")[0].replace(".", "").isidentifier()
    ]
    assert sum(map(len, prose)) > 50_000
    assert sum(map(len, dataset.documents("val"))) > 20_000


def test_stdlib_modules_are_on_one_side_of_the_split_only() -> None:
    splits = datasets.open("stdlib").manifest.splits
    assert not set(splits["train"]) & set(splits["val"])
    assert not any(path.startswith(("test/", "idlelib/", "encodings/")) for path in splits["train"])


@pytest.fixture
def disturbed_collector() -> Iterator[None]:
    """The garbage collector runs often and lets other threads go on, as where somebody listens to it."""
    threshold, interval_s = gc.get_threshold(), sys.getswitchinterval()

    def listen(phase: str, info: dict[str, int]) -> None:
        sum(range(2_000))

    gc.callbacks.append(listen)
    gc.set_threshold(50)
    sys.setswitchinterval(1e-5)
    yield
    gc.callbacks.remove(listen)
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval_s)


@pytest.mark.slow
@pytest.mark.usefixtures("disturbed_collector")
def test_stdlib_read_by_many_threads_gives_each_its_documents() -> None:
    shards = datasets.open("stdlib").shards("train")[:4]

    def beginning(shard: Shard) -> int:
        return sum(len(item.text()) for item in islice(shard.read(0), 40))

    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(beginning, shards))
    assert at_once == [beginning(shard) for shard in shards]


def test_stdlib_shard_read_from_a_position_continues_exactly_there() -> None:
    shard = datasets.open("stdlib").shards("train")[3]
    documents = list(islice(shard.documents(), 12))
    assert list(islice(shard.documents(5), 7)) == documents[5:]


def test_toolcalls_rows_stay_the_same_for_ever(made: Dataset) -> None:
    """A change of the generator must change `toolcalls.VERSION` and this digest together."""
    text = "\n".join(to_json(conversation) for conversation in islice(made.conversations("train"), 200))
    assert (toolcalls.VERSION, hashlib.sha256(text.encode()).hexdigest()[:16]) == ("1", "59d2b3670a98862d")


def test_toolcalls_row_depends_on_its_index_alone(made: Dataset) -> None:
    (shard,) = made.shards("train")
    assert list(islice(shard.conversations(2_990), 3)) == [
        toolcalls.row("train", i) for i in (2_990, 2_991, 2_992)
    ]
    assert toolcalls.row("train", 5) != toolcalls.row("train", 5, seed=1)


def test_toolcalls_shards_cover_the_split_in_order() -> None:
    dataset = toolcalls.open(train=5_003, val=1)
    assert [shard.name for shard in dataset.shards("train")] == ["toolcalls@1/train-0", "toolcalls@1/train-1"]
    assert list(dataset.shards("train")[1].conversations()) == [
        toolcalls.row("train", i) for i in range(5_000, 5_003)
    ]
    assert dataset.fingerprint != toolcalls.open(train=5_004, val=1).fingerprint


def test_toolcalls_split_without_rows_is_an_error() -> None:
    with pytest.raises(DatasetError, match="'val' of toolcalls@1 is empty"):
        next(toolcalls.open(train=1, val=0).conversations("val"))


def test_toolcalls_validation_asks_nothing_in_words_that_training_has_seen(
    rows: dict[str, list[Conversation]],
) -> None:
    asked = {
        split: {tuple(_plain(turn.content) for turn in c.turns if turn.role == "user") for c in conversations}
        for split, conversations in rows.items()
    }
    assert not asked["train"] & asked["val"]


def _plain(text: str) -> str:
    """A message without the variation of `shapes.casual` and without its numbers."""
    for greeting in shapes.GREETINGS:
        text = text.removeprefix(greeting)
    return re.sub(r"\d+", "0", text.rstrip(".?!").lower())


def test_toolcalls_arguments_fit_the_schemas_on_offer(rows: dict[str, list[Conversation]]) -> None:
    for conversation in rows["train"]:
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in conversation.tools}
        assert len(offered) == len(conversation.tools)
        for call in (call for turn in conversation.turns for call in turn.tool_calls):
            schema, arguments = offered[call.name], json.loads(call.arguments)
            assert set(schema["required"]) <= set(arguments) <= set(schema["properties"])
            for name, value in arguments.items():
                declared = schema["properties"][name]
                assert isinstance(value, PYTHON_TYPES[declared["type"]])
                assert value in declared.get("enum", [value])


def test_toolcalls_calculator_results_are_those_of_the_calculator(
    rows: dict[str, list[Conversation]],
) -> None:
    checked = 0
    for conversation in rows["train"]:
        results = {turn.tool_call_id: turn.content for turn in conversation.turns if turn.role == "tool"}
        for call in (call for turn in conversation.turns for call in turn.tool_calls):
            if call.name == "calculator" and not results[call.id].startswith("error"):
                assert results[call.id] == calculate(json.loads(call.arguments)["expression"])
                checked += 1
    assert checked > 400


def test_toolcalls_every_call_is_answered_and_the_assistant_has_the_last_word(
    rows: dict[str, list[Conversation]],
) -> None:
    for conversation in rows["train"]:
        calls = [call.id for turn in conversation.turns for call in turn.tool_calls]
        answers = [turn.tool_call_id for turn in conversation.turns if turn.role == "tool"]
        assert sorted(calls) == sorted(a for a in answers if a)
        assert conversation.turns[-1].role == "assistant"
        assert conversation.turns[-1].content


def test_toolcalls_are_varied(rows: dict[str, list[Conversation]]) -> None:
    train = rows["train"]
    first = {next(turn.content for turn in c.turns if turn.role == "user") for c in train}
    names = {call.name for c in train for turn in c.turns for call in turn.tool_calls}
    assert len(first) > 2_500
    assert len(names) > 45
    assert any(len(turn.tool_calls) > 1 for c in train for turn in c.turns)
    without = sum(not any(turn.tool_calls for turn in c.turns) for c in train)
    assert 0.12 < without / len(train) < 0.3


@pytest.mark.parametrize("name", find.names(shapes.DOMAINS))
def test_domain_needs_and_chains_are_whole(name: str) -> None:
    domain = find.load(shapes.DOMAINS, name, "domain")
    for seed in range(40):
        need = domain.need(Draw(f"need {seed}"))
        assert need.ask[-1] in ".?!"
        assert need.answer
        assert need.failure[1][-1] in ".?!"
        assert "{" not in need.ask + need.answer + (need.missing.ask if need.missing else "")
        if hasattr(domain, "chain"):
            chain = domain.chain(Draw(f"chain {seed}"))
            assert chain.steps
            assert "{" not in chain.ask + chain.answer


@pytest.mark.parametrize(("shape", "share"), shapes.SHAPES)
def test_shape_makes_conversations_from_any_seed(shape: Any, share: int) -> None:
    assert share > 0
    for seed in range(60):
        conversation = shape(Draw(str(seed)))
        assert Conversation.from_openai(json.loads(json.dumps(conversation.to_openai()))) == conversation
