"""Packing: nothing dropped silently, nothing stuck, at any context; the stream is exact after a resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import byte_tokenizer

from melete.errors import ConfigError, DatasetError
from melete.llm.chat import MeleteChat
from melete.llm.packing import (
    BUFFER,
    Piece,
    Rows,
    Source,
    Tally,
    encode,
    fixed_rows,
    open_mixture,
    parse_mixture,
)
from melete.records import Conversation, Turn
from melete.settings import load

TOKENIZER = byte_tokenizer()
CHAT = MeleteChat(TOKENIZER)


def conversation(i: int, exchanges: int = 1, length: int = 5) -> Conversation:
    turns = [Turn("system", "s")]
    for j in range(exchanges):
        turns += [Turn("user", f"q{i}.{j}"), Turn("assistant", f"{i}.{j}:" + "a" * length)]
    return Conversation(tuple(turns))


def source(conversations: list[Conversation], length: int, weight: float = 1.0) -> Source:
    return Source("own", weight, conversations, CHAT, length)


def encode_all(conversations: list[Conversation], length: int) -> tuple[list[Piece], Tally]:
    tally = Tally()
    return [piece for c in conversations for piece in encode(c, CHAT, length, tally)], tally


MIXED = [conversation(i, exchanges=1 + i % 7, length=(i * 37) % 90) for i in range(60)]
HUGE = [conversation(i, exchanges=40, length=60) for i in range(30)]


@pytest.mark.parametrize("context", [64, 256])
@pytest.mark.parametrize("conversations", [MIXED, HUGE, MIXED + HUGE], ids=["mixed", "huge", "both"])
def test_rows_at_short_contexts_always_have_something_to_train_on(
    context: int, conversations: list[Conversation]
) -> None:
    rows = Rows([source(conversations, context + 1)], context, seed=1)
    for _ in range(200):
        inputs, targets = next(rows)
        assert inputs.shape == targets.shape == (context,)
        assert (targets >= 0).any()


@pytest.mark.parametrize("context", [64, 256])
def test_encode_huge_conversations_trains_every_answer_once(context: int) -> None:
    pieces, tally = encode_all(HUGE, context + 1)
    text = "".join(TOKENIZER.decode([int(t) for t in piece.ids[piece.trained]]) for piece in pieces)
    whole = sum(sum(CHAT.render(c, False)[1]) for c in HUGE)
    for i, j in ((0, 0), (7, 20), (29, 39)):
        assert text.count(f"{i}.{j}:") >= 1
    assert tally.trained_tokens + tally.lost_tokens == whole
    assert tally.split == len(HUGE)
    assert max(map(len, pieces)) <= context + 1


def test_encode_an_exchange_longer_than_the_row_keeps_prompt_and_answer_and_is_counted() -> None:
    long = Conversation((Turn("user", "q" * 500), Turn("assistant", "a" * 500)))
    (piece,), tally = encode_all([long], 65)
    assert len(piece) == 65
    assert 25 <= piece.trained.sum() <= 40
    assert (tally.cut, tally.lost_tokens) == (1, 501 - int(piece.trained.sum()))


def test_encode_a_conversation_without_an_answer_is_counted() -> None:
    pieces, tally = encode_all([Conversation((Turn("user", "hello"),)), conversation(1)], 65)
    assert len(pieces) == 1
    assert tally.untrained == 1
    assert "1 without anything to train on" in tally.text()


def test_rows_targets_are_the_trained_tokens_of_their_inputs() -> None:
    rows = Rows([source(MIXED, 257)], 256, seed=1)
    for _ in range(20):
        inputs, targets = next(rows)
        where = np.flatnonzero(targets[:-1] >= 0)
        assert (inputs[where + 1] == targets[where]).all()
        assert not np.isin(targets, [TOKENIZER.bos, TOKENIZER.special["<|user|>"]]).any()


def test_rows_one_epoch_shows_every_conversation() -> None:
    mixed = source(MIXED, 257)
    rows = Rows([mixed], 256, seed=3)
    seen = ""
    while rows.epochs < 1 + BUFFER / len(mixed) + 1:
        inputs, _ = next(rows)
        seen += TOKENIZER.decode(inputs.tolist())
    assert all(f"q{i}.0" in seen for i in range(60))


def test_rows_waste_little_at_an_ordinary_context() -> None:
    rows = Rows([source(MIXED, 513)], 512, seed=1)
    used = [np.flatnonzero(next(rows)[0])[-1] + 1 for _ in range(40)]
    assert sum(used) / (40 * 512) > 0.97


def test_rows_resumed_at_a_position_go_on_exactly() -> None:
    sources = [source(MIXED, 129, 0.8), source(HUGE, 129, 0.2)]
    whole = Rows(sources, 128, seed=5)
    for _ in range(17):
        next(whole)
    position = json.loads(json.dumps(whole.position))
    resumed = Rows(sources, 128, seed=5, position=position)
    for _ in range(30):
        for a, b in zip(next(whole), next(resumed), strict=True):
            assert (a == b).all()


def test_rows_weights_are_shares_of_the_conversations() -> None:
    rows = Rows([source(MIXED, 129, 3), source(HUGE, 129, 1)], 128, seed=5)
    for _ in range(200):
        next(rows)
    first, second = rows.position["drawn"]
    assert abs(first / (first + second) - 0.75) < 0.01


def test_fixed_rows_are_the_same_every_time_and_end_at_the_limit() -> None:
    sources = [source(MIXED, 129), source(HUGE, 129)]
    once, twice = fixed_rows(sources, 128, 5), fixed_rows(sources, 128, 5)
    assert len(once) == 5
    assert all((a[0] == b[0]).all() for a, b in zip(once, twice, strict=True))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("toolcalls", [("toolcalls", None)]),
        ("a:0.7, b:0.3", [("a", 0.7), ("b", 0.3)]),
        ("name@1:2", [("name@1", 2.0)]),
        ("C:/data/own.jsonl", [("C:/data/own.jsonl", None)]),
    ],
)
def test_parse_mixture_names_and_weights(text: str, parts: list[tuple[str, float | None]]) -> None:
    assert parse_mixture(text) == parts


@pytest.mark.parametrize("text", ["", " , ", "a:0", "a:-1", "a:nan", "a:0.5,b"])
def test_parse_mixture_nonsense_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_mixture(text)


def test_open_mixture_of_own_jsonl_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(c.to_openai()) + "\n" for c in MIXED))
    (train,) = open_mixture(str(file), "train", CHAT, 257, load({"MELETE_HOME": str(tmp_path / "home")}))
    assert 40 <= len(train) <= 60
    assert train.fingerprint


def test_open_mixture_without_an_assistant_turn_is_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"hello {i}"}]} for i in range(80)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DatasetError, match="no assistant turn"):
        open_mixture(str(file), "train", CHAT, 257, load({"MELETE_HOME": str(tmp_path / "home")}))


def test_open_mixture_of_a_text_dataset_is_a_clear_error() -> None:
    with pytest.raises(DatasetError, match="text, not conversations"):
        open_mixture("stdlib", "train", CHAT, 257, load())
