"""Sampling draws from the distribution it says, and text comes out whole."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melete.llm.engine import Sampling
from melete.llm.engine.sampling import BatchSampler, RowSampler
from melete.llm.engine.text import ByteDecoder, StretchDecoder, TextStream, _byte_level_table

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 3.0, 0.5, -30.0, 1.5])
CPU = torch.device("cpu")


def draw(sampling: Sampling, count: int) -> Counter[int]:
    row = RowSampler(sampling)
    sampler = BatchSampler([row] * 50, CPU)
    drawn: Counter[int] = Counter()
    for _ in range(count // 50):
        drawn.update(sampler.choose(LOGITS.repeat(50, 1)).ids)
    return drawn


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, 8),
        ({"temperature": 0.5}, 8),
        ({"top_k": 3}, 3),
        ({"top_p": 0.8}, 3),
        ({"top_k": 4, "top_p": 0.9}, 3),
        ({"top_k": 1}, 1),
    ],
    ids=str,
)
def test_draws_follow_the_distribution_that_is_left(options: dict[str, Any], kept: int) -> None:
    probs = (LOGITS / options.get("temperature", 1.0)).softmax(-1)
    best = probs.topk(kept)
    expected = torch.zeros_like(probs).scatter(0, best.indices, best.values / best.values.sum())
    drawn = draw(Sampling(seed=1, **options), 20_000)
    found = torch.tensor([drawn[i] / 20_000 for i in range(8)])
    assert (found - expected).abs().max() < 0.015
    assert all(drawn[i] == 0 for i in range(8) if expected[i] == 0)


def test_top_p_over_a_flat_distribution_keeps_its_share_of_a_large_vocabulary() -> None:
    sampler = BatchSampler([RowSampler(Sampling(seed=i, top_p=0.5)) for i in range(400)], CPU)
    slope = torch.linspace(0, -1e-3, 4000)
    assert max(sampler.choose(slope.repeat(400, 1)).ids) in range(1800, 2001)


def test_top_n_of_a_row_does_not_depend_on_its_neighbours() -> None:
    rows = [RowSampler(Sampling(temperature=0, logprobs=n)) for n in (0, 5, 2)]
    choice = BatchSampler([*rows, RowSampler(Sampling())], CPU).choose(LOGITS.repeat(4, 1))
    assert [len(top) for top in choice.top] == [0, 5, 2, 0]
    assert [token for token, _ in choice.top[1]] == [4, 0, 7, 1, 5]
    assert choice.logprobs[0] == pytest.approx(float(LOGITS.log_softmax(-1)[4]))


def pieces_of(stream: TextStream, ids: list[int]) -> tuple[str, bool]:
    text = ""
    for i, token in enumerate(ids):
        piece, stopped = stream.add(token, last=i + 1 == len(ids))
        text += piece
        if stopped:
            return text, True
    return text, False


@given(
    st.text(alphabet="ab;ü€", max_size=30),
    st.lists(st.text(alphabet="ab;ü", min_size=1, max_size=4), max_size=3),
)
def test_text_stream_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    stream = TextStream(ByteDecoder([bytes([i]) for i in range(256)]), tuple(stop))
    said, stopped = pieces_of(stream, list(text.encode()))
    ends = [i for i in range(len(text) + 1) if any(text[:i].endswith(s) for s in stop)]
    if ends:
        begun = min(ends[0] - len(s) for s in stop if text[: ends[0]].endswith(s))
        assert (said, stopped) == (text[:begun], True)
    else:
        assert (said, stopped) == (text, False)


def byte_level_tokenizer() -> Any:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        ["héllo wörld, the quick brown fox €"] * 5,
        trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False),
    )
    core.add_special_tokens(["<|end|>"])
    core.add_tokens(["<tool_call>"])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")


TOKENIZER = byte_level_tokenizer()


@given(st.text(alphabet="hélo wrd€ 日", max_size=20))
def test_both_decoders_of_a_transformers_tokenizer_give_its_own_text(text: str) -> None:
    table = _byte_level_table(TOKENIZER)
    assert table is not None
    ids = [
        *TOKENIZER(text)["input_ids"],
        TOKENIZER.convert_tokens_to_ids("<tool_call>"),
        TOKENIZER.eos_token_id,
    ]
    for decoder in (ByteDecoder(table), StretchDecoder(TOKENIZER)):
        assert pieces_of(TextStream(decoder, ()), ids)[0] == text + "<tool_call>"
