"""On a GPU the engine says what it says on the CPU, through recorded graphs and across a swap."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from melete.llm.engine import Engine, Sampling
from melete.llm.lm import LM

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_generate_on_cuda_equals_the_cpu_before_and_after_a_swap(lm: LM, another: Callable[..., LM]) -> None:
    draw = random.Random(1)
    texts = [[draw.randrange(264) for _ in range(draw.randint(1, 60))] for _ in range(9)]
    greedy = Sampling(max_tokens=12, temperature=0, stop_ids=())
    cpu = Engine(lm, slots=4, dtype=torch.float32)
    gpu = Engine(lm, slots=4, dtype=torch.float32, device="cuda")
    assert [c.token_ids for c in gpu.generate(texts, greedy)] == [
        c.token_ids for c in cpu.generate(texts, greedy)
    ]
    assert gpu._scheduler._graphs is not None
    assert gpu._scheduler._graphs.usable, "the decode step was recorded"
    other = another(3).model.state_dict()
    cpu.swap(other)
    gpu.swap(other)
    assert [c.token_ids for c in gpu.generate(texts, greedy)] == [
        c.token_ids for c in cpu.generate(texts, greedy)
    ]
