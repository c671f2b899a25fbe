"""Decodes our GPT with few, large operations: the arithmetic of `llm/model.py`, rearranged, over extracted weights.

What is rearranged, none of it changes the result beyond rounding:
- `norm(x)` divides by the length |x| only; its factor √C moves behind the matrix that follows, where it meets a
  scalar that is applied anyway (the attention scale, the sum into the stream).
- Rotary pairs become neighbours by permuting rows of the q and k matrices, so a rotation is one complex product.
- Embedding norms and value-embedding scales are applied to the tables at load.

The stream, q, k, v and the softmax are fp32; matrices are in the runner's dtype, packed for oneDNN on the CPU, where
that halves the time of a small batch. The CPU's head stays fp32: logits rounded to bf16 tie too often.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from melete.errors import CheckpointError
from melete.llm.config import compute_dtype
from melete.llm.engine.cache import CacheShape, Pass, SlotCache, fit_context
from melete.llm.model import GPT, SHARPNESS

TINY = 1e-12
"""Added to a length before dividing by it, so that a zero vector stays zero."""

PACK_ROWS = 32
"""Batch size that oneDNN is told when it lays out a matrix; the layout serves 1 to 512 rows equally."""


class Matrix:
    """A linear layer without bias, packed for oneDNN where the device has it."""

    def __init__(self, weight: Tensor) -> None:
        self.packed = weight.device.type == "cpu" and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        # A copy in either case: the weights given may be in training.
        self.weight: Tensor = (
            torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACK_ROWS)
            if self.packed
            else weight.clone(memory_format=torch.contiguous_format)
        )

    def __call__(self, x: Tensor, after: str = "none") -> Tensor:
        """x (N, I) → (N, O), then `relu` or `none`."""
        if self.packed:
            out = torch.ops.mkldnn._linear_pointwise(x, self.weight, None, after, [], "")
            return cast(Tensor, out)
        product = F.linear(x, self.weight)
        return product.relu_() if after == "relu" else product


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one block; `value_column` is where its rows start in the joined value-embedding table."""

    qkv: Matrix
    out: Matrix
    up: Matrix
    down: Matrix
    residual: float
    shortcut: float
    value_column: int | None


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole model, ready to run."""

    embed: Tensor
    value_embed: Tensor | None
    layers: list[Layer]
    head: Matrix


class GPTRunner:
    """See the head of this file."""

    def __init__(
        self, model: GPT, slots: int, context: int | None, device: torch.device, dtype: torch.dtype | None
    ) -> None:
        self.config = config = model.config
        self.device = device
        self.dtype = dtype or compute_dtype(device)
        self.vocab_size = config.vocab_size
        self.root = config.width**0.5
        self.attention_scale = SHARPNESS * config.head_dim**0.5
        self._shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        cache_dtype = torch.float32 if device.type == "cpu" else self.dtype
        token_bytes = 2 * config.depth * config.kv_heads * config.head_dim * cache_dtype.itemsize
        context = fit_context(context, config.context, token_bytes, slots, device)
        half = config.head_dim // 2
        rates = config.rope_base ** (-torch.arange(half, dtype=torch.float32, device=device) / half)
        # One position more than the context: rows without a request point there.
        angles = torch.arange(context + 1, dtype=torch.float32, device=device)[:, None, None] * rates
        self.turns = torch.polar(torch.ones_like(angles), angles)  # (T + 1, 1, D/2)
        windows = tuple(config.window(layer) for layer in range(config.depth))
        self.cache = SlotCache(
            CacheShape(windows, slots, config.kv_heads, config.head_dim, context),
            device,
            cache_dtype,
        )
        self.weights = self.prepare(model.state_dict())

    def prepare(self, state_dict: Mapping[str, Tensor]) -> Weights:
        """See `Runner.prepare`."""
        wrong = [
            name
            for name, shape in self._shapes.items()
            if getattr(state_dict.get(name), "shape", None) != shape
        ]
        if wrong:
            raise CheckpointError(
                f"The weights do not fit the running model: {', '.join(wrong[:4])} are missing or misshapen.",
                next_step="Swap in weights of a model with the same configuration.",
            )
        config = self.config
        with torch.inference_mode():
            w = {name: state_dict[name].detach().to(self.device) for name in self._shapes}
            tables: list[Tensor] = []
            layers: list[Layer] = []
            for i in range(config.depth):
                name = f"blocks.{i}."
                column = None
                if name + "value_embed.weight" in w:
                    column = len(tables) * config.kv_heads * config.head_dim
                    scale = w[name + "value_scale"].float() / self.root
                    tables.append((w[name + "value_embed.weight"].float() * scale).to(self.dtype))
                layers.append(
                    Layer(
                        self._matrix(self._neighbours(w[name + "qkv.weight"])),
                        self._matrix(w[name + "out.weight"]),
                        self._matrix(w[name + "up.weight"]),
                        self._matrix(w[name + "down.weight"]),
                        float(w[name + "residual"]),
                        float(w[name + "shortcut"]),
                        column,
                    )
                )
            embed = F.rms_norm(w["embed.weight"].float(), (config.width,)).to(self.dtype)
            head_dtype = torch.float32 if self.device.type == "cpu" else self.dtype
            return Weights(
                embed,
                torch.cat(tables, dim=1) if tables else None,
                layers,
                Matrix(w["head.weight"].to(head_dtype)),
            )

    def use(self, weights: Weights) -> None:
        """See `Runner.use`."""
        self.weights = weights

    def forward(self, tokens: Tensor, positions: Tensor, step: Pass, select: Tensor | None) -> Tensor:
        """See `Runner.forward`."""
        config, root = self.config, self.root
        H, K, D = config.heads, config.kv_heads, config.head_dim
        N = tokens.size(0)
        w = self.weights
        x0 = w.embed.index_select(0, tokens).float()
        x = x0
        turns = self.turns.index_select(0, positions)
        values = None if w.value_embed is None else w.value_embed.index_select(0, tokens)
        for i, layer in enumerate(w.layers):
            x = x.mul(layer.residual).add_(x0, alpha=layer.shortcut)
            heads = layer.qkv(self._unit(x)).float()
            pairs = heads[:, : (H + K) * D].reshape(N, H + K, D // 2, 2)
            turned = torch.view_as_real(torch.view_as_complex(pairs) * turns).view(N, H + K, D)
            turned.div_(torch.linalg.vector_norm(turned, dim=-1, keepdim=True).add_(TINY))
            v = heads[:, (H + K) * D :]
            if values is not None and layer.value_column is not None:
                v = v + values.narrow(1, layer.value_column, K * D)
            mixed = step.attend(i, turned[:, :H], turned[:, H:], v.reshape(N, K, D), self.attention_scale)
            x.add_(layer.out(mixed.reshape(N, H * D).to(self.dtype)), alpha=root)
            hidden = layer.up(self._unit(x), "relu").square_()
            x.add_(layer.down(hidden), alpha=root * root)
        if select is not None:
            x = x.index_select(0, select)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).div_(root).add_(TINY)
        return w.head(x.div(length).to(w.head.weight.dtype)).float()

    def _unit(self, x: Tensor) -> Tensor:
        """x / |x| in the dtype of the matrices."""
        return x.div(torch.linalg.vector_norm(x, dim=-1, keepdim=True).add_(TINY)).to(self.dtype)

    def _matrix(self, weight: Tensor) -> Matrix:
        return Matrix(weight.to(self.dtype))

    def _neighbours(self, qkv: Tensor) -> Tensor:
        """Orders each q and k head's channels 0, D/2, 1, D/2 + 1, …; both sides of a score change alike."""
        H, D = self.config.heads + self.config.kv_heads, self.config.head_dim
        qk = qkv[: H * D].view(H, 2, D // 2, -1).transpose(1, 2).reshape(H * D, -1)
        return torch.cat((qk, qkv[H * D :]))
