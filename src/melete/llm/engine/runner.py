"""What the engine asks of a model: one forward pass over flat tokens that reads and writes the slot cache.

A runner owns a copy (or view) of the weights in the form that decodes fastest, and the cache. `forward` takes the
tokens of any mix of sequences laid end to end; the pass knows which slot each belongs to. The engine decides what
runs; a runner decides how.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from melete.llm.engine.cache import Pass, SlotCache

if TYPE_CHECKING:
    from melete.llm.lm import LM


class Runner(Protocol):
    """A model on one device with its cache."""

    vocab_size: int
    cache: SlotCache

    def forward(self, tokens: Tensor, positions: Tensor, step: Pass, select: Tensor | None) -> Tensor:
        """Logits (M, V) fp32 of the tokens (N,) at `positions` (N,), for the rows `select` (M,) or for all."""

    def prepare(self, state_dict: Mapping[str, Tensor]) -> Any:
        """Checks and casts new weights without using them yet; may run in any thread.

        Raises:
            CheckpointError: they do not fit the model.
        """

    def use(self, weights: Any) -> None:
        """Puts prepared weights in use."""


def make_runner(
    lm: LM, slots: int, context: int | None, device: torch.device, dtype: torch.dtype | None
) -> Runner:
    """The runner of a model: our own decode path for a GPT, the attention interface for a transformers model.

    Raises:
        ConfigError: the model cannot be run, or its cache does not fit into memory.
    """
    if lm.kind == "melete":
        from melete.llm.engine.gpt import GPTRunner

        return GPTRunner(lm.model, slots, context, device, dtype)
    from melete.llm.engine.hf import HFRunner

    return HFRunner(lm.model, lm.context, slots, context, device, dtype)
