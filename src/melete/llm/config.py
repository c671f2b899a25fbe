"""The shape of a model, the device that it runs on, and the one dial: `depth` decides everything that is left open.

`plan(depth, …)` derives width, heads, context, batch, learning rates and horizon in one place; each derived value is
a row (name, value, reason) that pretraining prints and `--dry-run` shows. Limits: the rules were measured at depths
2 to 6 on CPU and follow published scaling rules above that.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from melete.errors import CheckpointError, ConfigError, DeviceError


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
        softcap: logits are bent into (-softcap, softcap).
        rope_base: base of the rotary frequencies.
    """

    vocab_size: int
    context: int = 256
    depth: int = 4
    width: int = 256
    heads: int = 4
    kv_heads: int = 4
    windows: str = "L"
    softcap: float = 15.0
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
