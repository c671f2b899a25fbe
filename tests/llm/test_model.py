"""The model's hand-written pieces equal their plain formulas, in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from melete.errors import CheckpointError, ConfigError, DeviceError
from melete.llm import ops
from melete.llm.attention import causal_attention, window_mask
from melete.llm.config import GPTConfig, resolve_device
from melete.llm.fp8 import Float8Linear, use_fp8
from melete.llm.model import GPT


def tiny(**shape: int | str | float) -> GPT:
    """A small model whose projections are not zero, so that every part has a gradient."""
    values = {
        "vocab_size": 97,
        "context": 40,
        "depth": 3,
        "width": 32,
        "heads": 4,
        "kv_heads": 2,
        "windows": "SL",
    }
    model = GPT(GPTConfig(**{**values, **shape})).initialize(0)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in model.layers:
            for weight in (block.out.weight, block.down.weight):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
        model.head.weight.copy_(torch.randn(model.head.weight.shape, generator=generator) * 0.3)
    return model


def tokens(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 97, (rows, columns), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("window", [300, 128, 40, 1])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_causal_attention_on_the_cpu_equals_sdpa_with_its_gradients(window: int, kv_heads: int) -> None:
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(2, h, 300, 8, dtype=torch.float64, requires_grad=True) for h in (4, kv_heads, kv_heads)
    )
    ours = causal_attention(q, k, v, window)
    mask = window_mask(0, 300, 0, 300, window, q.device)
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0, enable_gqa=True)
    upstream = torch.randn_like(ours)
    torch.testing.assert_close(ours, plain)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (q, k, v), upstream),
        torch.autograd.grad(plain, (q, k, v), upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_norm_and_rotary_have_the_gradients_of_their_formulas() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(5, 4, dtype=torch.float64).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()
    y = F.rms_norm(x, (8,), eps=0.0)
    a, b = y.chunk(2, dim=-1)
    plain = torch.cat((a * cos[:, :4] - b * sin[:, :4], b * cos[:, 4:] + a * sin[:, 4:]), dim=-1)
    ours = ops.normed_rotary(x, cos, sin)
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)
    upstream = torch.randn_like(x)
    (mine,), (theirs,) = (torch.autograd.grad(out, x, upstream) for out in (ours, plain))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_relu_squared_has_the_gradient_of_its_formula() -> None:
    x = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    ours = torch.autograd.grad(ops.relu_squared(x * 1.0).sum(), x)[0]
    torch.testing.assert_close(ours, torch.autograd.grad(x.clamp_min(0).square().sum(), x)[0])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_loss_equals_cross_entropy_of_the_logits_with_its_gradients(reduction: str) -> None:
    model, x, y = tiny(), tokens(3, 40), tokens(3, 40, seed=1)
    y[0, :9] = -1
    plain = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=-1, reduction=reduction)
    ours = model(x, y, reduction)
    torch.testing.assert_close(ours.flatten(), plain.flatten(), rtol=1e-4, atol=1e-5)
    upstream = torch.linspace(0, 1, plain.numel()).view_as(plain)
    theirs = torch.autograd.grad(plain, list(model.parameters()), upstream)
    for mine, other in zip(
        torch.autograd.grad(ours, list(model.parameters()), upstream.view_as(ours)), theirs, strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def test_loss_with_every_target_ignored_is_zero_and_not_nan() -> None:
    model, x = tiny(), tokens(2, 8)
    loss = model(x, torch.full_like(x, -1))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_logits_do_not_depend_on_later_tokens() -> None:
    model, x = tiny(), tokens(1, 40)
    changed = x.clone()
    changed[0, 20:] = (changed[0, 20:] + 1) % 97
    torch.testing.assert_close(model(x)[:, :20], model(changed)[:, :20])


def test_short_window_hides_far_tokens_from_a_single_layer() -> None:
    q = torch.randn(1, 1, 40, 8)
    v = torch.randn(1, 1, 40, 8)
    other = v.clone()
    other[:, :, 0] += 1
    near, far = causal_attention(q, q, v, 10), causal_attention(q, q, other, 10)
    torch.testing.assert_close(near[:, :, 10:], far[:, :, 10:])
    assert not torch.equal(near[:, :, :10], far[:, :, :10])


def test_tokens_beyond_the_context_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"41 tokens do not fit[^$]*At most 40"):
        tiny()(tokens(1, 41))


def test_initialize_with_one_seed_gives_one_model() -> None:
    first, second, third = tiny(), tiny(), GPT(tiny().config).initialize(5)
    assert torch.equal(first.embed.weight, second.embed.weight)
    assert not torch.equal(first.embed.weight, third.embed.weight)


@pytest.mark.parametrize(
    "shape", [{"heads": 5}, {"kv_heads": 3}, {"windows": "LX"}, {"windows": ""}, {"width": 12, "heads": 4}]
)
def test_impossible_shape_is_a_config_error(shape: dict[str, int | str]) -> None:
    with pytest.raises(ConfigError, match="Not a model shape"):
        tiny(**shape)


def test_unknown_key_in_a_checkpoint_shape_is_a_checkpoint_error() -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        GPTConfig.from_dict({"vocab_size": 9, "colour": "blue"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_where_there_is_none_is_a_device_error_that_lists_what_is_there() -> None:
    with pytest.raises(DeviceError, match="This machine has: cpu"):
        resolve_device("cuda")


def test_fp8_where_the_device_has_none_is_a_device_error() -> None:
    with pytest.raises(DeviceError, match="does not multiply fp8"):
        use_fp8(tiny(), torch.device("cpu"))


def test_fp8_linear_is_close_to_its_bf16_matmul_with_its_gradients() -> None:
    torch.manual_seed(0)
    layer = Float8Linear(32, 48, bias=False, dtype=torch.bfloat16)
    x = torch.randn(4, 16, 32, dtype=torch.bfloat16, requires_grad=True)
    upstream = torch.randn(4, 16, 48, dtype=torch.bfloat16)
    ours, plain = layer(x), F.linear(x, layer.weight)
    pairs = zip(
        (ours, *torch.autograd.grad(ours, (x, layer.weight), upstream)),
        (plain, *torch.autograd.grad(plain, (x, layer.weight), upstream)),
        strict=True,
    )
    assert all((mine - theirs).norm() < 0.1 * theirs.norm() for mine, theirs in pairs)
