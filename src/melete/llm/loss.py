"""Cross-entropy of soft-capped logits that never holds the logits of a whole batch.

The head's matmul, the cap and the softmax run over chunks of rows. When the loss is one number, its gradient is known
at once, so the gradients of the hidden states and of the head are computed in the forward pass and the logits are
never needed again; per-token losses (`reduction="none"`) compute them once more in the backward pass.

With z = h Wᵀ, l = c·tanh(z / c), p = softmax(l):  dL/dz = (p - onehot) · (1 - (l / c)²).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORE = -1
"""Target of a position that has no loss."""

CHUNK_NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 28}
"""Logits held at once: a CPU chunk stays in the caches, a CUDA chunk fills the machine."""


def softcap_cross_entropy(
    hidden: Tensor, head: Tensor, targets: Tensor, softcap: float, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of `softcap · tanh(hidden @ headᵀ / softcap)` against targets.

    Args:
        hidden: (N, C) final hidden states.
        head: (V, C) output matrix.
        targets: (N,) token ids; -1 is ignored.
        softcap: bound of the logits.
        reduction: `mean` over the targets that count (0 when none does), `sum`, or `none`: (N,) with 0 where ignored.

    Returns:
        fp32 loss.
    """
    if reduction == "none":
        losses: Tensor = _TokenLosses.apply(hidden, head, targets, softcap)  # type: ignore[no-untyped-call]
        return losses
    assert reduction in ("mean", "sum"), reduction
    count = (targets != IGNORE).sum().clamp_min(1)
    scale = 1.0 / count if reduction == "mean" else torch.ones((), device=hidden.device)
    if not torch.is_grad_enabled() or not (hidden.requires_grad or head.requires_grad):
        return _forward(hidden, head, targets, softcap).sum() * scale
    loss: Tensor = _SummedLoss.apply(hidden, head, targets, softcap, scale)  # type: ignore[no-untyped-call]
    return loss


def softcap_logits(hidden: Tensor, head: Tensor, softcap: float) -> Tensor:
    """(…, V) fp32 capped logits, for sampling and for tests."""
    return softcap * torch.tanh((hidden @ head.T).float() / softcap)


def _chunks(N: int, V: int, device: torch.device) -> list[tuple[int, int]]:
    rows = max(16, CHUNK_NUMBERS.get(device.type, 1 << 24) // V)
    return [(start, min(start + rows, N)) for start in range(0, N, rows)]


def _chunk_losses(
    hidden: Tensor, head: Tensor, targets: Tensor, softcap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (n,), capped logits / softcap (n, V) fp32, log of the normaliser (n, 1)."""
    bent = (hidden @ head.T).float().mul_(2 / softcap).sigmoid_().mul_(2).sub_(1)  # tanh(z / c), cheaper so
    # |l| < softcap keeps exp in range, so the usual subtraction of the maximum is not needed.
    log_sum = torch.mul(bent, softcap).exp_().sum(-1, keepdim=True).log_()
    picked = bent.gather(1, targets.clamp_min(0)[:, None]) * softcap
    return (log_sum - picked)[:, 0] * (targets != IGNORE), bent, log_sum


def _forward(hidden: Tensor, head: Tensor, targets: Tensor, softcap: float) -> Tensor:
    losses = hidden.new_empty(hidden.size(0), dtype=torch.float32)
    for start, end in _chunks(hidden.size(0), head.size(0), hidden.device):
        losses[start:end] = _chunk_losses(hidden[start:end], head, targets[start:end], softcap)[0]
    return losses


def _chunk_grad(
    bent: Tensor, log_sum: Tensor, targets: Tensor, softcap: float, weight: Tensor, dtype: torch.dtype
) -> Tensor:
    """dL/dz (n, V) of a chunk, each row times its `weight` (n, 1)."""
    grad = torch.mul(bent, softcap).sub_(log_sum).exp_()
    grad.scatter_add_(1, targets.clamp_min(0)[:, None], -torch.ones_like(log_sum))
    grad.mul_(weight * (targets != IGNORE)[:, None])
    return grad.mul_(bent.square_().neg_().add_(1)).to(dtype)


class _SummedLoss(torch.autograd.Function):
    """Σ losses · scale, with both gradients computed on the way forward."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, softcap: float, scale: Tensor
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        dhidden = torch.empty_like(hidden)
        dhead = torch.zeros_like(head, dtype=torch.float32)
        for start, end in _chunks(hidden.size(0), head.size(0), hidden.device):
            h, t = hidden[start:end], targets[start:end]
            losses, bent, log_sum = _chunk_losses(h, head, t, softcap)
            total += losses.sum()
            dlogits = _chunk_grad(bent, log_sum, t, softcap, scale, hidden.dtype)
            dhidden[start:end] = dlogits @ head
            dhead += dlogits.T @ h
        ctx.save_for_backward(dhidden, dhead.to(head.dtype))
        return total * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dhidden, dhead = ctx.saved_tensors
        return dhidden * grad.to(dhidden.dtype), dhead * grad.to(dhead.dtype), None, None, None


class _TokenLosses(torch.autograd.Function):
    """Losses (N,), with the logits computed again on the way back."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, softcap: float) -> Tensor:
        ctx.save_for_backward(hidden, head, targets)
        ctx.softcap = softcap
        return _forward(hidden, head, targets, softcap)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, targets = ctx.saved_tensors
        dhidden = torch.empty_like(hidden)
        dhead = torch.zeros_like(head, dtype=torch.float32)
        for start, end in _chunks(hidden.size(0), head.size(0), hidden.device):
            h, t = hidden[start:end], targets[start:end]
            _, bent, log_sum = _chunk_losses(h, head, t, ctx.softcap)
            dlogits = _chunk_grad(bent, log_sum, t, ctx.softcap, grad[start:end, None], hidden.dtype)
            dhidden[start:end] = dlogits @ head
            dhead += dlogits.T @ h
        return dhidden, dhead.to(head.dtype), None, None
