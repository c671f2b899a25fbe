"""Cross-entropy of a language-model head that never holds the logits of a whole batch.

The head's matmul and the softmax run over chunks of rows. When the loss is one number, its gradient is known at once:
the gradients of the hidden states and of the head are computed on the way forward and the logits are never needed
again. Per-token losses (`reduction="none"`) compute them once more on the way back.

With z = h Wᵀ and p = softmax(z), row n weighted by w:  dL/dz = w · (p - onehot). The weight is applied to the rows of
width C, not to the V logits. While training, p is in the compute dtype, which its gradient has anyway; without a
gradient the softmax is taken in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -1
"""Target of a position that has no loss."""

CHUNK_NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 28}
"""Logits held at once: a CPU chunk stays in the caches, a CUDA chunk fills the machine."""


def cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of `hidden @ headᵀ` against targets.

    Args:
        hidden: (N, C) final hidden states.
        head: (V, C) output matrix.
        targets: (N,) token ids; -1 is ignored.
        reduction: `mean` over the targets that count (0 when none does), `sum`, or `none`: (N,) with 0 where ignored.

    Returns:
        fp32 loss.
    """
    if reduction == "none":
        losses: Tensor = _TokenLosses.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
        return losses
    assert reduction in ("mean", "sum"), reduction
    count = (targets != IGNORE).sum().clamp_min(1) if reduction == "mean" else targets.new_ones(())
    if not torch.is_grad_enabled() or not (hidden.requires_grad or head.requires_grad):
        return _losses(hidden, head, targets).sum() / count
    total: Tensor = _SummedLoss.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return total / count


def _chunks(N: int, V: int, device: torch.device) -> list[slice]:
    rows = max(16, CHUNK_NUMBERS.get(device.type, 1 << 24) // V)
    return [slice(start, min(start + rows, N)) for start in range(0, N, rows)]


def _losses(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """(N,) fp32 losses by an fp32 softmax."""
    losses = hidden.new_empty(hidden.size(0), dtype=torch.float32)
    for rows in _chunks(hidden.size(0), head.size(0), hidden.device):
        logits = (hidden[rows] @ head.T).float()
        losses[rows] = F.cross_entropy(logits, targets[rows], ignore_index=IGNORE, reduction="none")
    return losses


def _gradients(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (N,), d/dhidden (N, C) and d/dhead (V, C) of Σ weights · losses; weights (N, 1) in the compute dtype."""
    losses = hidden.new_empty(hidden.size(0), dtype=torch.float32)
    dhidden, dhead = torch.empty_like(hidden), torch.zeros_like(head, dtype=torch.float32)
    minus_one = hidden.new_full((1, 1), -1.0)
    for rows in _chunks(hidden.size(0), head.size(0), hidden.device):
        probs = torch.softmax(hidden[rows] @ head.T, dim=-1)
        picked = targets[rows].clamp_min(0)[:, None]
        losses[rows] = probs.gather(1, picked)[:, 0].float().clamp_min_(1e-30).log_().neg_()
        dlogits = probs.scatter_add_(1, picked, minus_one.expand(picked.size(0), 1))
        torch.mul(dlogits @ head, weights[rows], out=dhidden[rows])
        dhead += dlogits.T @ (hidden[rows] * weights[rows])
    return losses, dhidden, dhead.to(head.dtype)


class _SummedLoss(torch.autograd.Function):
    """Σ losses, with both gradients computed on the way forward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        counted = targets != IGNORE
        losses, dhidden, dhead = _gradients(hidden, head, targets, counted[:, None].to(hidden.dtype))
        ctx.save_for_backward(dhidden, dhead)
        return (losses * counted).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        dhidden, dhead = ctx.saved_tensors
        return dhidden * grad.to(dhidden.dtype), dhead * grad.to(dhead.dtype), None


class _TokenLosses(torch.autograd.Function):
    """Losses (N,), with the probabilities computed again on the way back."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, head, targets)
        return _losses(hidden, head, targets)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden, head, targets = ctx.saved_tensors
        weights = (grad * (targets != IGNORE))[:, None].to(hidden.dtype)
        _, dhidden, dhead = _gradients(hidden, head, targets, weights)
        return dhidden, dhead, None
