"""The shape of a model, the device that it runs on, and the one dial: `depth` decides everything that is left open.

`plan(depth, …)` derives width, heads, context, batch, learning rates and horizon in one place; each derived value is
a row (name, value, reason) that pretraining prints and `--dry-run` shows. Limits: the rules were measured at depths
1 to 4 on CPU and follow published scaling rules above that.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from melete.errors import CheckpointError, ConfigError, DeviceError

HEAD_DIM = 64
TOKENS_PER_PARAMETER = 12
MATRIX_RATE = 0.03
EMBED_RATE = 0.5
HEAD_RATE = 0.01
SCALAR_RATE = 0.05
MOMENTUM = 0.85
WEIGHT_DECAY = 0.0
WARMUP_STEPS = 10
DECAY_SHARE = 0.7
REFERENCE_CPU = (400_000, 1_024)
REFERENCE_CUDA = (1_300_000_000, 524_288)


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a model; kept in every checkpoint.

    Attributes:
        vocab_size: V, tokens of the tokenizer with its special ones.
        context: T, the most tokens a forward pass may hold.
        depth: number of layers.
        width: C, channels of the residual stream.
        heads: query heads; `width` is a multiple of it and the head dimension D is even.
        kv_heads: key and value heads; `heads` is a multiple of it.
        windows: one letter per layer, repeated to the depth: L attends to the whole context, S to a quarter of it.
            The last layer is always L.
        rope_base: base of the rotary frequencies.
    """

    vocab_size: int
    context: int = 256
    depth: int = 4
    width: int = 256
    heads: int = 4
    kv_heads: int = 4
    windows: str = "L"
    rope_base: float = 10_000.0

    def __post_init__(self) -> None:
        wrong = (
            "width must be a multiple of heads" if self.width % self.heads
            else "heads must be a multiple of kv_heads" if self.heads % self.kv_heads
            else "the head dimension must be even" if (self.width // self.heads) % 2
            else "windows must be letters S and L" if not self.windows or set(self.windows) - set("SL")
            else "every size must be at least 1" if min(self.vocab_size, self.context, self.depth) < 1
            else None
        )  # fmt: skip
        if wrong:
            raise ConfigError(f"Not a model shape: {wrong}; found {self}.")

    @property
    def head_dim(self) -> int:
        """D, channels of one head."""
        return self.width // self.heads

    def window(self, layer: int) -> int:
        """Tokens that a position of this layer attends to, itself included."""
        letter = "L" if layer == self.depth - 1 else self.windows[layer % len(self.windows)]
        return self.context if letter == "L" else max(1, self.context // 4)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GPTConfig:
        """Reads what `to_dict` wrote.

        Raises:
            CheckpointError: keys that this version does not know, or missing ones.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise CheckpointError(f"The checkpoint's model shape cannot be read: {error}.") from error


def resolve_device(name: str = "auto") -> torch.device:
    """The device of a name: auto, cpu, cuda, cuda:N or mps. `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        DeviceError: this machine has no such device.
    """
    present = ["cpu"]
    if torch.cuda.is_available():
        present = [f"cuda:{i}" for i in range(torch.cuda.device_count())] + present
    if torch.backends.mps.is_available():
        present = ["mps", *present]
    if name == "auto":
        return torch.device("cuda" if present[0].startswith("cuda") else present[0])
    kind, _, _ = name.partition(":")
    if name in present or (name == kind and any(p.partition(":")[0] == kind for p in present)):
        return torch.device(name)
    raise DeviceError(
        f"There is no device {name!r} here.",
        allowed=f"This machine has: {', '.join(present)}.",
        next_step="Use --device auto to take the best one that is there.",
    )


def compute_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device multiplies it natively (CUDA, CPUs with avx512_bf16 or amx), else fp32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and "mkldnn" in torch.__config__.show().lower():
        return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
    return torch.float32


@dataclass(frozen=True)
class Rates:
    """Learning rates and their companions; `plan` derives them from depth and batch.

    Attributes:
        matrix: Muon's rate: the root-mean-square change of an orthogonal update times √(max(1, rows / columns)).
        embed: AdamW's rate of the token embedding.
        value_embed: AdamW's rate of the value embeddings.
        head: AdamW's rate of the output matrix.
        scalar: AdamW's rate of the learned numbers per layer.
        momentum: Muon's Nesterov momentum.
        beta1: AdamW's first decay.
        beta2: AdamW's second decay.
        weight_decay: cautious decay of the matrices, per unit of rate.
    """

    matrix: float
    embed: float
    value_embed: float
    head: float
    scalar: float
    momentum: float = 0.95
    beta1: float = 0.8
    beta2: float = 0.95
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Derived:
    """One derived value: what pretraining prints and `--dry-run` shows."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Everything that a pretraining run needs to know, and why.

    Attributes:
        model: the shape.
        batch_rows: rows of a global batch.
        micro_rows: rows that one rank takes at once.
        steps: optimizer steps.
        rates: learning rates.
        warmup_steps: steps over which the rates rise.
        decay_share: share of the steps, at the end, over which the rates fall to zero.
        rows: the derived values with their reasons.
    """

    model: GPTConfig
    batch_rows: int
    micro_rows: int
    steps: int
    rates: Rates
    warmup_steps: int
    decay_share: float
    rows: tuple[Derived, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.steps * self.batch_rows * self.model.context

    def scale(self, step: int) -> float:
        """The schedule's factor of every rate: up, flat, then straight down to zero at the end."""
        up = (step + 1) / self.warmup_steps if self.warmup_steps else 1.0
        down = (self.steps - step) / max(1.0, self.decay_share * self.steps)
        return min(1.0, up, down)


def plan(
    depth: int,
    vocab_size: int,
    device: torch.device,
    *,
    width: int = 0,
    kv_heads: int = 0,
    context: int = 0,
    batch_tokens: int = 0,
    tokens: int = 0,
    steps: int = 0,
    rate: float = 1.0,
    micro_rows: int = 0,
    ranks: int = 1,
) -> Plan:
    """Derives a pretraining run from its depth; a value of 0 is derived, any other is taken as given.

    Args:
        depth: the dial.
        vocab_size: of the tokenizer.
        device: decides context, batch and how much fits at once.
        width: channels.
        kv_heads: heads of keys and values.
        context: tokens per row.
        batch_tokens: tokens of a global batch.
        tokens: tokens of the whole run.
        steps: optimizer steps of the whole run, instead of `tokens`.
        rate: factor of every learning rate.
        micro_rows: rows that one rank takes at once.
        ranks: how many train together.

    Raises:
        ConfigError: a batch that does not hold a row per rank, or an impossible shape.
    """
    rows: list[Derived] = []

    def row(name: str, value: float | str, reason: str, given: float = 0) -> None:
        shown = (
            value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
        )
        rows.append(Derived(name, shown, "as given" if given else reason))

    small = device.type != "cuda"
    C = width or HEAD_DIM * depth
    row("width", C, f"{HEAD_DIM} channels per layer", width)
    head_dim = HEAD_DIM if C % HEAD_DIM == 0 else C // max(1, C // HEAD_DIM)
    heads = C // head_dim
    row("heads", heads, f"head dimension {head_dim}")
    row("kv heads", kv_heads or heads, "one per query head; fewer make decoding cheaper", kv_heads)
    T = context or (256 if small else 2048)
    row("context", T, "short rows suit a CPU" if small else "long rows suit a GPU", context)
    model = GPTConfig(vocab_size, T, depth, C, heads, kv_heads or heads)
    parameters = matmul_parameters(model)
    horizon = tokens or TOKENS_PER_PARAMETER * parameters
    reference = REFERENCE_CPU if small else REFERENCE_CUDA
    batch = batch_tokens or (reference[1] if steps else _batch_tokens(horizon, *reference))
    if batch < T * ranks:
        raise ConfigError(
            f"A batch of {batch:,} tokens does not hold a row of {T:,} for each of {ranks} ranks.",
            allowed=f"At least {T * ranks:,}.",
        )
    batch_rows = batch // T // ranks * ranks
    row("batch", batch_rows * T, "grows with tokens^0.383 (arXiv:2505.13738)", batch_tokens)
    own_rows = batch_rows // ranks
    fits = micro_rows or max(1, (16_384 if small else 131_072) // T)
    micro = next(n for n in range(min(fits, own_rows), 0, -1) if own_rows % n == 0)
    row("rows at once", micro, "the most that divides the batch and fits", micro_rows)
    count = steps or max(1, horizon // (batch_rows * T))
    row(
        "steps",
        count,
        f"{TOKENS_PER_PARAMETER} tokens per matmul parameter ({parameters:,})",
        steps or tokens,
    )
    row("tokens", count * batch_rows * T, "steps x batch")

    narrow = (C / 192) ** -0.5
    rates = Rates(
        matrix=MATRIX_RATE * rate,
        embed=EMBED_RATE * narrow * rate,
        value_embed=EMBED_RATE * narrow * rate,
        head=HEAD_RATE * narrow * rate,
        scalar=SCALAR_RATE * rate,
        momentum=MOMENTUM if small else 0.95,
        weight_decay=WEIGHT_DECAY,
    )
    row("rate of matrices", rates.matrix, "Muon's step is orthogonal: its size holds for any width and batch")
    row("rate of embeddings", rates.embed, "measured at width 192; falls with √width")
    row("rate of the head", rates.head, "measured at width 192; falls with √width")
    row("momentum", rates.momentum, "a short memory suits a short run" if small else "as usual for Muon")
    row("weight decay", rates.weight_decay, "off: it has not been measured to pay at these sizes")
    warmup = min(WARMUP_STEPS, count // 10)
    row("warm-up", warmup, "steps; short, since the projections start at zero")
    row("decay", DECAY_SHARE, "share of the steps over which the rates fall to zero")
    return Plan(model, batch_rows, micro, count, rates, warmup, DECAY_SHARE, tuple(rows))


def matmul_parameters(model: GPTConfig) -> int:
    """Parameters that every token multiplies with: layers and head, without the embeddings."""
    attention = model.width * model.head_dim * (2 * model.heads + 2 * model.kv_heads)
    return model.depth * (attention + 8 * model.width**2) + model.width * model.vocab_size


def _batch_tokens(horizon: int, reference_horizon: int, reference_batch: int) -> int:
    """Tokens per batch as a power of two, from the horizon."""
    return int(2 ** round(math.log2(reference_batch * (horizon / reference_horizon) ** 0.383)))
