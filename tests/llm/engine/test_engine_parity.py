"""The engine says what the model says: same tokens and log-probs as a forward pass over the whole text."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melete.errors import ConfigError
from melete.llm.engine import Engine, Sampling, cache, score
from melete.llm.lm import LM

GREEDY = Sampling(max_tokens=12, temperature=0, stop_ids=())


def prompts(count: int, longest: int, vocab: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(vocab) for _ in range(draw.randint(1, longest))] for _ in range(count)]


@torch.inference_mode()
def logprobs_by_model(lm: LM, ids: list[int], begin: int) -> list[float]:
    table = lm.logits(torch.tensor([ids]))[0].float().log_softmax(-1)
    return [float(table[i - 1, ids[i]]) for i in range(begin, len(ids))]


@pytest.mark.parametrize(
    "shape",
    [
        {"windows": "L"},
        {"windows": "SSL", "depth": 4},
        {"kv_heads": 4, "depth": 1},
        {"kv_heads": 1, "heads": 2, "windows": "S"},
    ],
    ids=str,
)
def test_generate_mixed_lengths_equals_the_model_one_by_one(
    shape: dict[str, Any], another: Callable[..., LM], by_model: Any
) -> None:
    lm = another(1, **shape)
    engine = Engine(lm, slots=4, dtype=torch.float32, prefill_chunk=16)
    texts = prompts(9, 70, 264)
    for prompt, completion in zip(texts, engine.generate(texts, GREEDY), strict=True):
        assert completion.token_ids == by_model(lm, prompt, 12)
        assert completion.finish_reason == "length"


@pytest.mark.parametrize("span_rows", [1, 3])
def test_generate_with_rows_cut_into_spans_equals_the_model(
    span_rows: int, monkeypatch: pytest.MonkeyPatch, lm: LM, by_model: Any
) -> None:
    monkeypatch.setattr(cache, "SPAN_ROWS", span_rows)
    monkeypatch.setattr(cache, "WORTH_A_CUT", 1)
    texts = prompts(12, 70, 264, seed=8)
    engine = Engine(lm, slots=8, dtype=torch.float32)
    for prompt, completion in zip(texts, engine.generate(texts, GREEDY), strict=True):
        assert completion.token_ids == by_model(lm, prompt, 12)


@pytest.mark.parametrize("windows", ["L", "SL"])
def test_generate_with_fused_attention_equals_the_model(
    windows: str, another: Callable[..., LM], by_model: Any
) -> None:
    lm = another(2, windows=windows)
    engine = Engine(lm, slots=4, dtype=torch.float32, prefill_chunk=16)
    engine.runner.cache.fused = True  # what a GPU runs; the CPU can, slower
    engine.runner.cache.clean(engine.context)
    texts = prompts(9, 70, 264, seed=9)
    for prompt, completion in zip(texts, engine.generate(texts, GREEDY), strict=True):
        assert completion.token_ids == by_model(lm, prompt, 12)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=40))
def test_spans_cover_all_rows_and_every_length(lengths: list[int]) -> None:
    spans = cache.spans_of(lengths, 2048)
    assert [row for span in spans for row in range(span.begin, span.end)] == list(range(len(lengths)))
    for span in spans:
        filled = [length for length in lengths[span.begin : span.end] if length]
        assert span.length == max(filled, default=1)
        assert span.aligned == (len(set(filled)) <= 1)


def test_logprobs_of_generated_tokens_equal_the_models(lm: LM, engine: Engine) -> None:
    texts = prompts(6, 40, 264, seed=2)
    sampling = Sampling(max_tokens=8, temperature=1.3, top_k=40, seed=5, logprobs=3, stop_ids=())
    for prompt, completion in zip(texts, engine.generate(texts, sampling), strict=True):
        ids = prompt + completion.token_ids
        assert completion.logprobs == pytest.approx(logprobs_by_model(lm, ids, len(prompt)), abs=1e-4)
        assert [len(top) for top in completion.top] == [3] * 8
        assert all(
            top[0][1] >= logprob - 1e-6
            for top, logprob in zip(completion.top, completion.logprobs, strict=True)
        )


def test_generate_in_bf16_stays_near_the_fp32_model(lm: LM) -> None:
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU multiplies no bf16")
    texts = prompts(5, 40, 264, seed=3)
    sampling = Sampling(max_tokens=6, temperature=0, logprobs=0, stop_ids=())
    for prompt, completion in zip(
        texts, Engine(lm, slots=4, dtype=torch.bfloat16).generate(texts, sampling), strict=True
    ):
        ids = prompt + completion.token_ids
        assert completion.logprobs == pytest.approx(logprobs_by_model(lm, ids, len(prompt)), abs=0.05)


def test_score_of_continuations_equals_the_models_logprobs(lm: LM, engine: Engine) -> None:
    texts = [text for text in prompts(8, 80, 264, seed=4) if len(text) > 4]
    for text, scored in zip(texts, engine.score([(text[:3], text[3:]) for text in texts]), strict=True):
        assert scored.logprobs == pytest.approx(logprobs_by_model(lm, text, 3), abs=1e-4)
        assert not scored.greedy


def test_score_of_the_greedy_continuation_says_greedy(lm: LM, by_model: Any) -> None:
    prompt = prompts(1, 30, 264, seed=5)[0]
    best = by_model(lm, prompt, 5)
    other = [*best[:4], (best[4] + 1) % 264]
    assert [scored.greedy for scored in score(lm, [(prompt, best), (prompt, other)])] == [True, False]


def transformers_lm(family: str) -> LM:
    import transformers

    sizes = {
        "vocab_size": 200, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    config = {
        "llama": lambda: transformers.LlamaConfig(**sizes),
        "qwen3": lambda: transformers.Qwen3Config(**sizes, head_dim=24, tie_word_embeddings=True),
        "mistral": lambda: transformers.MistralConfig(**sizes, sliding_window=8),
    }[family]()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return LM(model, None, None, 96, "transformers", family, source=family)  # type: ignore[arg-type]


@pytest.mark.slow
def test_transformers_model_with_capped_scores_is_refused_at_once() -> None:
    import transformers

    config = transformers.Gemma2Config(
        vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    lm = LM(model, None, None, 64, "transformers", "gemma", source="gemma")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="softcap"):
        Engine(lm)


def generate_by_transformers(lm: LM, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = lm.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return list(map(int, out[0, len(prompt) :]))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
def test_generate_with_a_transformers_model_equals_its_own_generate(family: str) -> None:
    lm = transformers_lm(family)
    engine = Engine(lm, slots=4, prefill_chunk=16)
    texts = prompts(6, 60, 200)
    for prompt, completion in zip(texts, engine.generate(texts, GREEDY), strict=True):
        assert completion.token_ids == generate_by_transformers(lm, prompt, 12)


def test_swap_of_a_transformers_model_uses_the_new_weights_and_leaves_the_callers_alone() -> None:
    lm = transformers_lm("qwen3")
    engine = Engine(lm, slots=2)
    prompt = prompts(1, 30, 200)[0]
    before = generate_by_transformers(lm, prompt, 12)
    changed = {
        name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in lm.model.state_dict().items()
    }
    engine.swap(changed)
    assert generate_by_transformers(lm, prompt, 12) == before
    lm.model.load_state_dict(changed)
    assert engine.generate([prompt], GREEDY)[0].token_ids == generate_by_transformers(lm, prompt, 12)


@pytest.mark.slow
def test_generate_with_a_lora_adapter_folds_it_in() -> None:
    peft = pytest.importorskip("peft")
    lm = transformers_lm("qwen3")
    lm.model = peft.get_peft_model(lm.model, peft.LoraConfig(r=4, target_modules="all-linear")).eval()
    with torch.no_grad():
        for name, parameter in lm.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    prompt = prompts(1, 30, 200)[0]
    assert Engine(lm, slots=1).generate([prompt], GREEDY)[0].token_ids == generate_by_transformers(
        lm, prompt, 12
    )
