"""Rows hold every token of every document once, in an order that a seed decides and a position continues."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import torch

from melete import datasets
from melete.datasets import Dataset
from melete.errors import DatasetError
from melete.llm.data import Rows, validation_rows
from melete.llm.distributed import World
from melete.llm.tokenizer import Tokenizer

BYTES = Tokenizer([bytes([i]) for i in range(256)])


def corpus(folder: Path, lengths: list[int]) -> Dataset:
    """Documents of given lengths; the n-th one is made of the byte n."""
    folder.mkdir()
    for split, some in (("train", lengths), ("val", lengths[:60])):
        lines = [json.dumps({"text": chr(32 + n % 90) * length}) for n, length in enumerate(some)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return datasets.open(folder)


def take(rows: Rows, batches: int) -> list[torch.Tensor]:
    return [next(rows).targets for _ in range(batches)]


@pytest.fixture
def mixed(tmp_path: Path) -> Dataset:
    draw = random.Random(0)
    return corpus(tmp_path / "mixed", [draw.choice((3, 40, 190, 900, 2500)) for _ in range(120)])


def epoch_targets(dataset: Dataset, context: int, chunk_chars: int) -> list[int]:
    """Targets up to the end of the first epoch's last whole row."""
    rows = Rows(dataset, "train", BYTES, context, 1, seed=0, chunk_chars=chunk_chars)
    targets: list[int] = []
    while True:
        batch = next(rows)
        if rows.epoch > 0:
            rows.close()
            return targets
        targets += batch.targets.flatten().tolist()


@pytest.mark.parametrize("chunk_chars", [500, 20_000, 10_000_000])
def test_one_epoch_at_256_trains_on_all_but_a_row_of_the_tokens(mixed: Dataset, chunk_chars: int) -> None:
    total = sum(1 + len(text) for text in mixed.documents("train"))
    targets = epoch_targets(mixed, 256, chunk_chars)
    assert total - 2 * 256 <= len(targets) <= total
    assert len(targets) / total > 0.99


def test_long_documents_are_trained_on_in_proportion_to_their_length(tmp_path: Path) -> None:
    lengths = [50] * 89 + [8000]
    dataset = corpus(tmp_path / "uneven", lengths)
    seen = Counter(epoch_targets(dataset, 64, 10_000))
    long_token = BYTES.encode(chr(32 + 89))[0]
    assert seen[long_token] >= 8000 - 64


def test_position_continues_with_the_same_rows_at_any_moment(mixed: Dataset) -> None:
    whole = Rows(mixed, "train", BYTES, 32, 3, seed=4, chunk_chars=9_000)
    batches = [next(whole) for _ in range(1200)]
    assert whole.epoch >= 1, "the test must cross an epoch"
    whole.close()
    for moment in (0, *random.Random(1).sample(range(1190), 6)):
        position = json.loads(json.dumps(batches[moment].position))
        resumed = Rows(mixed, "train", BYTES, 32, 3, seed=4, chunk_chars=9_000, position=position)
        for expected in batches[moment + 1 : moment + 9]:
            assert torch.equal(next(resumed).tokens, expected.tokens)
        resumed.close()


def test_targets_are_the_tokens_one_later(mixed: Dataset) -> None:
    rows = Rows(mixed, "train", BYTES, 32, 4, seed=0)
    batch = next(rows)
    rows.close()
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])


def test_two_ranks_together_see_the_batches_of_one(mixed: Dataset) -> None:
    one = Rows(mixed, "train", BYTES, 32, 4, seed=2)
    two = [Rows(mixed, "train", BYTES, 32, 4, seed=2, world=World(rank, 2)) for rank in (0, 1)]
    for _ in range(20):
        together = torch.cat([next(rows).tokens for rows in two])
        assert sorted(together.tolist()) == sorted(next(one).tokens.tolist())
    for rows in (one, *two):
        rows.close()


def test_another_seed_gives_another_order(mixed: Dataset) -> None:
    first, second = (Rows(mixed, "train", BYTES, 32, 4, seed=seed) for seed in (0, 1))
    assert not torch.equal(next(first).tokens, next(second).tokens)
    first.close()
    second.close()


def test_text_shorter_than_a_row_is_repeated_until_it_fills_one(tmp_path: Path) -> None:
    rows = Rows(corpus(tmp_path / "short", [5] * 60), "train", BYTES, 1000, 1, seed=0)
    assert next(rows).tokens.shape == (1, 1000)
    rows.close()


def test_validation_split_shorter_than_a_row_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"at least 1,001"):
        validation_rows(corpus(tmp_path / "short", [5] * 60), BYTES, 1000, 10_000)


def test_empty_validation_split_is_a_dataset_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "train.jsonl").write_text('{"text": "some words"}\n')
    (tmp_path / "empty" / "val.jsonl").write_text("")
    with pytest.raises(DatasetError):
        validation_rows(datasets.open(tmp_path / "empty"), BYTES, 16, 100)
