"""A decoder-only transformer on one page; the inference engine follows exactly this arithmetic.

    x  = norm(embed[tokens]);  x0 = x
    for each layer:
        x  = residual·x + shortcut·x0                       two learned numbers per layer
        q, k, v = split(qkv @ norm(x))
        v  = v + value_scale·value_embed[tokens]            on every second layer, the last one included
        q, k = rotary(norm(q))·scale, rotary(norm(k))       norm over the head dimension; scale = sharpness / √D
        x  = x + out @ attention(q, k, v, window)
        x  = x + down @ relu(up @ norm(x))²
    logits = head @ norm(x)

Decisions: no biases and no learned norm gains (`norm` is RMS norm); q, k and v come from one matrix; projections back
into the stream start at zero, so the model starts as its embedding; embedding and head are separate. Rotary pairs
channel d with d + D/2. Parameters live in the compute dtype; the optimizer keeps fp32 masters (see `optim.py`).

Limit: `tokens` may not be longer than `config.context`. There is no KV cache here: decoding is `llm/engine`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from melete.errors import ConfigError
from melete.llm.attention import causal_attention
from melete.llm.config import GPTConfig
from melete.llm.loss import IGNORE, cross_entropy
from melete.llm.ops import norm, normed_rotary, relu_squared

SHARPNESS = 1.44
"""Scores of unit-norm q and k are cosines; this sharpens them beyond 1 / √D."""


def rotary_tables(config: GPTConfig, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """fp32 cos and sin, (T, D) for the whole context; both halves of D are alike."""
    half = config.head_dim // 2
    frequencies = config.rope_base ** (-torch.arange(half, dtype=torch.float32, device=device) / half)
    angles = torch.arange(config.context, dtype=torch.float32, device=device)[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def has_value_embedding(layer: int, depth: int) -> bool:
    """Whether a layer mixes a token's own embedding into its values: every second one, counted from the last."""
    return (depth - 1 - layer) % 2 == 0


class Block(nn.Module):
    """One layer: attention, then a ReLU² MLP."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.window = config.window(layer)
        C, D = config.width, config.head_dim
        self.qkv = nn.Linear(C, (config.heads + 2 * config.kv_heads) * D, bias=False)
        self.out = nn.Linear(config.heads * D, C, bias=False)
        self.up = nn.Linear(C, 4 * C, bias=False)
        self.down = nn.Linear(4 * C, C, bias=False)
        self.residual = nn.Parameter(torch.ones(()))
        self.shortcut = nn.Parameter(torch.zeros(()))
        self.value_embed: nn.Embedding | None = None
        self.value_scale: nn.Parameter | None = None
        if has_value_embedding(layer, config.depth):
            self.value_embed = nn.Embedding(config.vocab_size, config.kv_heads * D)
            self.value_scale = nn.Parameter(torch.ones(()))

    def forward(
        self,
        x: Tensor,
        x0: Tensor,
        tokens: Tensor,
        cos: Tensor,
        sin: Tensor,
        before: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One layer.

        Args:
            x: (B, T, C).
            x0: (B, T, C).
            tokens: (B, T).
            cos: (H + K, T, D) with the scale of the scores.
            sin: (H + K, T, D) with the scale of the scores.
            before: keys and values (1, K, P, D) that stand before every row.

        Returns:
            (B, T, C), and the layer's own keys and values (B, K, T, D).
        """
        x = self.residual * x + self.shortcut * x0
        mixed, own = self.attention(norm(x), tokens, cos, sin, before)
        x = x + mixed
        return cast(Tensor, x + self.down(relu_squared(self.up(norm(x))))), own

    def attention(
        self, x: Tensor, tokens: Tensor, cos: Tensor, sin: Tensor, before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, T, C); cos, sin (H + K, T, D) → (B, T, C), and keys and values."""
        B, T, _ = x.shape
        H, K, D = self.config.heads, self.config.kv_heads, self.config.head_dim
        heads = self.qkv(x).view(B, T, H + 2 * K, D).transpose(1, 2)  # (B, H + 2K, T, D)
        qk, v = heads[:, : H + K], heads[:, H + K :]
        if self.value_embed is not None and self.value_scale is not None:
            v = v + self.value_scale * self.value_embed(tokens).view(B, T, K, D).transpose(1, 2)
        qk = normed_rotary(qk, cos, sin)
        own = keys, values = qk[:, H:], v
        if before is not None:
            keys = torch.cat((before[0].expand(B, -1, -1, -1), keys), dim=2)
            values = torch.cat((before[1].expand(B, -1, -1, -1), values), dim=2)
        y = causal_attention(qk[:, :H], keys, values, self.window)
        mixed: Tensor = self.out(y.transpose(1, 2).reshape(B, T, H * D))
        return mixed, own


class GPT(nn.Module):
    """The model; see the head of this file."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.compiled_trunk: Callable[[Tensor], Tensor] | None = None
        cos, sin = rotary_tables(config)
        self.cos: Tensor
        self.sin: Tensor
        self.per_head: Tensor  # (H + K, 1, 1): the scale of the scores, on q alone
        scales = [SHARPNESS / config.head_dim**0.5] * config.heads + [1.0] * config.kv_heads
        self.register_buffer("per_head", torch.tensor(scales)[:, None, None], persistent=False)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @property
    def layers(self) -> list[Block]:
        """The blocks in order."""
        return [cast(Block, block) for block in self.blocks]

    @torch.no_grad()
    def initialize(self, seed: int) -> GPT:
        """Draws the weights on the CPU in fp32, so that every device and dtype starts from the same ones."""
        generator = torch.Generator().manual_seed(seed)
        C = self.config.width
        bound = (3 / C) ** 0.5  # uniform with standard deviation 1/√C

        def uniform(weight: Tensor, scale: float = 1.0) -> None:
            draw = torch.rand(weight.shape, generator=generator, dtype=torch.float32)
            weight.copy_(draw.mul_(2).sub_(1).mul_(bound * scale))

        self.embed.weight.copy_(torch.randn(self.embed.weight.shape, generator=generator))
        for block in self.layers:
            uniform(block.qkv.weight)
            uniform(block.up.weight)
            nn.init.zeros_(block.out.weight)
            nn.init.zeros_(block.down.weight)
            block.residual.fill_(1.0)
            block.shortcut.fill_(0.1)
            if block.value_embed is not None and block.value_scale is not None:
                uniform(block.value_embed.weight)
                block.value_scale.fill_(1.0)
        nn.init.zeros_(self.head.weight)
        return self

    def trunk(self, tokens: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Final normed hidden states (B, T, C) of tokens (B, T), each row after the tokens `prefix` (P,) if given.

        Raises:
            ConfigError: more tokens than the context.
        """
        P = 0 if prefix is None else len(prefix)
        length, context = P + tokens.size(1), self.config.context
        if context < length:
            raise ConfigError(
                f"{length:,} tokens do not fit into the model's context.",
                allowed=f"At most {context:,}.",
                next_step="Shorten the input, or train a model with a larger --context.",
            )
        x = x0 = norm(self.embed(tokens))
        cos, sin = (self.per_head * table[:length] for table in (self.cos, self.sin))
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        if prefix is None:
            for block in self.layers:
                x, _ = block(x, x0, tokens, cos, sin)
            return norm(x)
        y = y0 = norm(self.embed(prefix[None]))
        for block in self.layers:
            y, before = block(y, y0, prefix[None], cos[:, :P], sin[:, :P])
            x, _ = block(x, x0, tokens, cos[:, P:], sin[:, P:], before)
        return norm(x)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        reduction: str = "mean",
        prefix: Tensor | None = None,
    ) -> Tensor:
        """Loss of targets, or logits.

        Args:
            tokens: (B, T) int64.
            targets: (B, T) int64, -1 where a position has no loss; None asks for logits.
            reduction: `mean`, `sum` or `none`.
            prefix: (P,) int64, tokens that stand before every row and are computed once.

        Returns:
            fp32: the loss, losses (B, T) for `none`, or logits (B, T, V).
        """
        trunk = self.compiled_trunk if self.training and targets is not None and prefix is None else None
        hidden = trunk(tokens) if trunk else self.trunk(tokens, prefix)
        if targets is None:
            return (hidden @ self.head.weight.T).float()
        hidden, flat = hidden.flatten(0, 1), targets.flatten()
        if reduction == "mean":
            return cross_entropy(hidden, self.head.weight, flat, reduction)
        # After pretraining most positions have no target, and the head is a large part of the work.
        counted = (flat != IGNORE).nonzero()[:, 0]
        loss = cross_entropy(hidden[counted], self.head.weight, flat[counted], reduction)
        if reduction == "sum":
            return loss
        return loss.new_zeros(flat.shape).index_copy(0, counted, loss).view(targets.shape)

    def compile_training(self) -> None:
        """Lets `torch.compile` fuse the layers in training; needs a C++ compiler on the CPU, Triton on CUDA.

        Evaluation and sampling stay eager: their shapes vary, and each new one would be compiled again.
        """
        self.compiled_trunk = torch.compile(self.trunk, dynamic=False)

    def matmul_parameters(self) -> int:
        """Parameters that each token multiplies with: 2 FLOPs each forward, 4 backward."""
        return sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear))

    def flops_per_token(self) -> float:
        """FLOPs of forward and backward per trained token, attention over the causal half of each window included."""
        config = self.config
        attended = sum(
            min(config.window(i), config.context)
            * (1 - min(config.window(i), config.context) / (2 * config.context))
            for i in range(config.depth)
        )
        return 6 * self.matmul_parameters() + 12 * config.width * attended
