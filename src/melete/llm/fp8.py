"""fp8 matmuls for the layers on GPUs that have them (Ada, Hopper, Blackwell): an option, off by default.

Each matmul scales its two tensors so that their largest value fits (one scale per tensor, taken anew each time), rounds
to fp8 and lets `torch._scaled_mm` multiply with bf16 output: e4m3 for activations and weights, e5m2 for gradients
(Micikevicius et al. 2022, arXiv:2209.05433). The head stays in bf16. It pays from widths of about 1,024; below that
the scaling costs more than the matmul saves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from melete.errors import DeviceError
from melete.llm.model import GPT

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
HAS_FP8 = (8, 9)


def use_fp8(model: GPT, device: torch.device) -> None:
    """Turns the matrices of all layers into fp8 ones; weights, masters and checkpoints stay as they are.

    Raises:
        DeviceError: the device does not multiply fp8.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < HAS_FP8:
        raise DeviceError(
            f"The device {device} does not multiply fp8.",
            allowed="CUDA devices of compute capability 8.9 or higher (Ada, Hopper, Blackwell) do.",
            next_step="Leave out --fp8.",
        )
    for block in model.layers:
        for name in ("qkv", "out", "up", "down"):
            getattr(block, name).__class__ = Float8Linear


class Float8Linear(nn.Linear):
    """A linear layer without bias whose three matmuls (forward and both gradients) are in fp8."""

    def forward(self, x: Tensor) -> Tensor:
        """x (…, C) → (…, out)."""
        y: Tensor = _Float8Matmul.apply(x.flatten(0, -2), self.weight)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1)


class _Float8Matmul(torch.autograd.Function):
    """x (N, C) times weight (O, C) transposed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        small_x, scale_x = _round(x, E4M3)
        small_w, scale_w = _round(weight, E4M3)
        ctx.save_for_backward(small_x, scale_x, small_w, scale_w)
        ctx.dtype = x.dtype
        return _multiply(small_x, small_w.T, scale_x, scale_w, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        small_x, scale_x, small_w, scale_w = ctx.saved_tensors
        small_g, scale_g = _round(grad, E5M2)
        dx = _multiply(small_g, _by_columns(small_w), scale_g, scale_w, ctx.dtype)
        dw = _multiply(small_g.T.contiguous(), _by_columns(small_x), scale_g, scale_x, ctx.dtype)
        return dx, dw


def _round(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """fp8 values and the fp32 scale that they are to be multiplied with."""
    scale = x.abs().amax().float().clamp_min(1e-12) / torch.finfo(dtype).max
    return (x.float() / scale).to(dtype).contiguous(), scale


def _by_columns(x: Tensor) -> Tensor:
    """The same matrix with its columns contiguous, as the second operand must be."""
    return x.T.contiguous().T


def _multiply(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, dtype: torch.dtype) -> Tensor:
    out: Tensor = torch._scaled_mm(a, b, scale_a=scale_a, scale_b=scale_b, out_dtype=dtype)
    return out
