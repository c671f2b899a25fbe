"""The optimizer lowers the loss, stands still without a gradient, and continues exactly from its state."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from melete.llm.config import GPTConfig, Rates
from melete.llm.model import GPT
from melete.llm.optim import Optimizer, build_optimizer, orthogonalize

RATES = Rates(matrix=0.02, embed=0.1, value_embed=0.1, head=0.01, scalar=0.01, weight_decay=0.1)


def model_and_optimizer(dtype: torch.dtype = torch.float32) -> tuple[GPT, Optimizer]:
    model = GPT(GPTConfig(64, context=16, depth=2, width=32, heads=2, kv_heads=1)).initialize(0).to(dtype)
    return model, build_optimizer(model, RATES)


def batch(seed: int) -> Tensor:
    return torch.randint(0, 8, (4, 17), generator=torch.Generator().manual_seed(seed))


def train(model: GPT, optimizer: Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        rows = batch(step)
        loss = model(rows[:, :-1], rows[:, 1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_lowers_the_loss_in_both_precisions() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        losses = train(*model_and_optimizer(dtype), range(12))
        assert losses[-1] < losses[0] - 1


def test_zero_gradient_after_real_ones_moves_nothing() -> None:
    model, optimizer = model_and_optimizer()
    train(model, optimizer, range(3))
    before = {name: p.clone() for name, p in model.state_dict().items()}
    momenta = {name: t.clone() for name, t in optimizer.state_tensors().items()}
    for _ in range(11):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        assert optimizer.step() == 0
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert all(torch.equal(t, momenta[name]) for name, t in optimizer.state_tensors().items())


def test_missing_gradient_counts_as_zero() -> None:
    model, optimizer = model_and_optimizer()
    before = model.embed.weight.clone()
    assert optimizer.step() == 0
    assert torch.equal(model.embed.weight, before)


def test_gradient_that_is_not_finite_moves_nothing_and_is_reported() -> None:
    model, optimizer = model_and_optimizer()
    train(model, optimizer, range(2))
    before = {name: p.clone() for name, p in model.state_dict().items()}
    rows = batch(0)
    model(rows[:, :-1], rows[:, 1:]).backward()
    assert model.head.weight.grad is not None
    model.head.weight.grad[0, 0] = math.nan
    assert not math.isfinite(optimizer.step())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_orthogonalize_brings_singular_values_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, 24, 48)).float())
    assert values.min() > 0.7
    assert values.max() < 1.3


def test_orthogonalize_of_zero_is_zero() -> None:
    assert not orthogonalize(torch.zeros(2, 4, 8)).any()


def test_state_and_masters_continue_to_the_same_bits() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model, optimizer = model_and_optimizer(dtype)
        train(model, optimizer, range(4))
        weights = {name: t.clone() for name, t in optimizer.master_weights().items()}
        state = {name: t.clone() for name, t in optimizer.state_tensors().items()}
        unbroken = train(model, optimizer, range(4, 8))

        other, continued = model_and_optimizer(dtype)
        continued.load_master_weights(weights)
        continued.load_state_tensors(state)
        assert train(other, continued, range(4, 8)) == unbroken


def test_master_weights_carry_every_name_of_the_state_dict() -> None:
    model, optimizer = model_and_optimizer()
    weights = optimizer.master_weights()
    assert weights.keys() == dict(model.named_parameters()).keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], p) for name, p in model.state_dict().items())
