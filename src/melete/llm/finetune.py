"""What SFT and RL share: the model they start from, its learner, and where a resumed run goes on.

A run starts from whatever `--base` names and goes on from its own newest checkpoint when it is resumed, so `latest`
never means the run itself. Learning rates are fractions of those of pretraining at the same depth and batch: the
batch of a finetuning is small, and unscaled rates undo the base in its first steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melete.llm import lm as lms
from melete.llm.config import compute_dtype, plan
from melete.llm.distributed import SINGLE, World
from melete.llm.learner import Learner, OwnLearner, TransformersLearner, lora_of, token_losses
from melete.llm.lm import LM
from melete.llm.optim import Rates
from melete.records import CheckpointRecord
from melete.runs import checkpoints
from melete.runs.run import Run
from melete.settings import Settings

FULL_RATE = 2e-5
"""AdamW's rate for a whole transformers model."""
RL_FRACTION = 0.2
"""Rates of RL against those of SFT."""
LORA_RATE = 2e-4
"""AdamW's rate for an adapter: ten times the full one (Schulman et al. 2025, "LoRA Without Regret")."""

Losses = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Start:
    """Where a finetuning begins: the learner, what it came from first, and the checkpoint it goes on from."""

    learner: Learner
    source: str
    resumed: Path | None
    record: CheckpointRecord | None

    @property
    def step(self) -> int:
        """Steps done before."""
        return self.record.step if self.record else 0

    @property
    def position(self) -> dict[str, Any]:
        """What the checkpoint kept beside weights and optimizer; empty at the beginning."""
        return self.record.data_position if self.record else {}


def begin(
    run: Run,
    settings: Settings,
    *,
    base: str,
    device: torch.device,
    fraction: float,
    lora_rank: int = 0,
    world: World = SINGLE,
) -> Start:
    """Loads the base, or the run's own newest checkpoint when it is resumed, and builds its learner.

    Args:
        run: the run.
        settings: where runs are.
        base: what `lm.load` takes.
        device: where to train.
        fraction: share of the full learning rates.
        lora_rank: rank of a new adapter, 0 for none.
        world: the ranks that train together.

    Raises:
        MeleteError: the base cannot be loaded, or a LoRA option does not fit it.
    """
    resumed = run.latest_checkpoint() if run.resuming else None
    lm = open_base(str(resumed) if resumed else base, settings, device, bool(lora_rank))
    lora = lora_of(lm, lora_rank)
    learner: Learner
    if lm.kind == "melete":
        learner = OwnLearner(lm, own_rates(lm, fraction), world)
    else:
        rate = (LORA_RATE if lora else FULL_RATE) * fraction
        learner = TransformersLearner(lm, rate, lora, world)
    if resumed is None:
        return Start(learner, lm.source, None, None)
    learner.restore(resumed)
    record = checkpoints.read(resumed)
    run.rewind(record.step - 1)
    return Start(learner, str(record.config.get("started_from", base)), resumed, record)


def open_base(ref: str, settings: Settings, device: torch.device, lora: bool) -> LM:
    """Loads a model for training: in fp32, or the frozen base of an adapter in the compute dtype."""
    return lms.load(ref, settings, device, compute_dtype(device) if lora else torch.float32)


def reference(start: Start, settings: Settings, device: torch.device) -> Losses:
    """Token losses of the model that the run started from, frozen."""
    lm = lms.load(start.source, settings, device, compute_dtype(device))
    lm.model.requires_grad_(False)

    def losses(tokens: Tensor, targets: Tensor) -> Tensor:
        return token_losses(lm, tokens, targets)

    return losses


def own_rates(lm: LM, fraction: float) -> Rates:
    """Rates of our own model: a fraction of what `plan` gives a model of its shape."""
    shape = lm.model.config
    derived = plan(
        shape.depth,
        shape.vocab_size,
        lm.device,
        width=shape.width,
        context=shape.context,
        batch_tokens=shape.context,  # the rates do not depend on it
        rate=fraction,
    )
    return derived.rates
