"""Turns become one row as long as each prompt goes on where the last turn ended, and every drawn token stays once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melete.llm.config import GPTConfig
from melete.llm.grpo import batches_of, micro_batches
from melete.llm.learner import TransformersLearner
from melete.llm.lm import LM
from melete.llm.loss import IGNORE
from melete.llm.merge import merge
from melete.llm.model import GPT

ids = st.lists(st.integers(0, 99), min_size=1, max_size=6)


def test_merge_of_turns_that_go_on_is_one_row_with_only_drawn_tokens_marked() -> None:
    (row,) = merge([([1, 2], [3, 4], [-0.1, -0.2]), ([1, 2, 3, 4, 5], [6], [-0.3])])
    assert row.tokens.tolist() == [1, 2, 3, 4, 5, 6]
    assert np.isnan(row.logprobs[[0, 1, 4]]).all()
    assert row.logprobs[[2, 3, 5]].tolist() == pytest.approx([-0.1, -0.2, -0.3])


def test_merge_where_one_token_was_rewritten_begins_a_new_row() -> None:
    rows = merge([([1, 2], [3, 4], [-0.1, -0.2]), ([1, 2, 3, 9, 5], [6], [-0.3])])
    assert [row.tokens.tolist() for row in rows] == [[1, 2, 3, 4], [1, 2, 3, 9, 5, 6]]
    assert [row.drawn for row in rows] == [2, 1]


def test_merge_leaves_out_completions_without_a_token() -> None:
    assert merge([([1, 2], [], [])]) == []


@given(st.lists(st.tuples(ids, ids, st.booleans()), min_size=1, max_size=5))
def test_merge_keeps_every_drawn_token_once_in_its_own_context(
    turns: list[tuple[list[int], list[int], bool]],
) -> None:
    completions, before = [], list[int]()
    for given_ids, drawn, goes_on in turns:
        prompt = [*before, *given_ids] if goes_on else [*given_ids]
        completions.append((prompt, drawn, [-float(token) for token in drawn]))
        before = [*prompt, *drawn]
    rows = merge(completions)
    assert sum(row.drawn for row in rows) == sum(len(drawn) for _, drawn, _ in completions)
    for row in rows:
        own = ~np.isnan(row.logprobs)
        assert (row.logprobs[own] == -row.tokens[own]).all()
    whole = [row.tokens.tolist() for row in rows]
    assert all(any(w[: len(p) + len(d)] == [*p, *d] for w in whole) for p, d, _ in completions)


def test_model_with_a_shared_beginning_gives_the_losses_and_gradients_of_whole_rows() -> None:
    config = GPTConfig(vocab_size=64, context=96, depth=3, width=32, heads=2, kv_heads=1, windows="SL")
    model = GPT(config).initialize(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    draw = np.random.default_rng(0)
    start = draw.integers(0, 64, 30).tolist()
    rows = []
    for own, drawn in ((5, 9), (20, 3), (1, 30)):
        prompt = [*start, *draw.integers(0, 64, own).tolist()]
        (row,) = merge([(prompt, draw.integers(0, 64, drawn).tolist(), [-1.0] * drawn)])
        rows.append((row, 1.0))
    results = []
    for share in (False, True):
        model.zero_grad()
        total = torch.zeros(())
        for batch in micro_batches(rows, torch.device("cpu"), share=share):
            assert (batch.prefix is not None) == share
            beginning = batch.prefix.ids[0] if batch.prefix else None
            losses = model(batch.tokens, batch.targets, reduction="none", prefix=beginning)
            assert ((losses != 0) == (batch.targets != IGNORE)).all()
            total = total + losses.sum()
        total.backward()
        results.append((total.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (whole, gradients), (shared, others) = results
    torch.testing.assert_close(whole, shared)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [None, 24])
def test_transformers_model_with_a_beginning_for_each_group_gives_the_gradients_of_whole_rows(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    monkeypatch.setattr("melete.llm.learner.compute_dtype", lambda device: torch.float32)

    config = transformers.Qwen3Config(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=128, use_sliding_window=window is not None,
        sliding_window=window, max_window_layers=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(config)
    learner = TransformersLearner(LM(model, None, None, 128, "transformers", "tiny", ""), 1e-3)  # type: ignore[arg-type]
    draw = np.random.default_rng(0)
    groups = []
    for length in (40, 31, 55):
        prompt = draw.integers(0, 64, length).tolist()
        tries = [draw.integers(0, 64, n).tolist() for n in (9, 3, 17)]
        groups.append([(merge([(prompt, one, [-1.0] * len(one))])[0], 1.0) for one in tries])
    results = []
    for beginnings in ("none", "many"):
        batches = batches_of(groups, torch.device("cpu"), beginnings)
        assert all((batch.prefix is not None) == (beginnings == "many") for batch in batches)
        total = sum(learner.loss(batch.tokens, batch.targets, batch.prefix) for batch in batches)
        total.backward()
        gradients = [p.grad.clone() for p in learner.trained]
        learner.model.zero_grad()
        results.append((total.detach(), gradients, sum(batch.tokens.numel() for batch in batches)))
    (whole, ones, computed), (shared, others, fewer) = results
    torch.testing.assert_close(whole, shared)
    assert fewer < 0.6 * computed
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
