"""Tiny real models for the engine's tests: a GPT of ours with random weights everywhere, and its byte tokenizer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from melete.llm.chat import MeleteChat
from melete.llm.config import GPTConfig
from melete.llm.engine import Engine
from melete.llm.lm import LM
from melete.llm.model import GPT
from melete.llm.tokenizer import Tokenizer

Greedy = Callable[[LM, list[int], int], list[int]]


def make_lm(seed: int = 0, **shape: object) -> LM:
    """A GPT over the 256 bytes and the special tokens; every parameter is random, so every term of the sum counts."""
    tokenizer = Tokenizer([bytes([i]) for i in range(256)])
    sizes = {"context": 96, "depth": 3, "width": 64, "heads": 4, "kv_heads": 2, "windows": "SL"} | shape
    config = GPTConfig(vocab_size=tokenizer.vocab_size, **sizes)  # type: ignore[arg-type]
    model = GPT(config).initialize(seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return LM(model, tokenizer, MeleteChat(tokenizer), config.context, "melete", "tiny", source="tiny")


@torch.inference_mode()
def greedy(lm: LM, prompt: list[int], count: int) -> list[int]:
    """What the model itself says, without any cache: the most probable token, `count` times."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(lm.logits(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.fixture(scope="session")
def lm() -> LM:
    return make_lm()


@pytest.fixture
def engine(lm: LM) -> Engine:
    """Four slots, fp32, prompts in chunks of 16 tokens."""
    return Engine(lm, slots=4, dtype=torch.float32, prefill_chunk=16)


@pytest.fixture
def by_model() -> Greedy:
    return greedy


@pytest.fixture
def another() -> Callable[..., LM]:
    return make_lm
