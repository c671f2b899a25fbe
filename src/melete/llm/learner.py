"""A model that is being finetuned: loss, optimizer step and checkpoint, the same calls for both kinds of model.

`OwnLearner` trains our own model with Muon and AdamW (`optim.py`); `TransformersLearner` trains a transformers model
with AdamW, in full (fp32 weights, bf16 arithmetic where that is fast) or by LoRA (the base in bf16, the adapter in
fp32). The optimizer always starts fresh: momenta of the stage before point where its data did. Both average the
gradient over ranks, and in both a step without any gradient moves nothing at all, neither weights nor momenta.

Limit: a transformers model is whole on every rank.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from melete.errors import ConfigError
from melete.llm import hf
from melete.llm.checkpoint import save_model
from melete.llm.config import compute_dtype
from melete.llm.distributed import SINGLE, World
from melete.llm.lm import LM
from melete.llm.loss import IGNORE
from melete.llm.optim import Rates, build_optimizer
from melete.runs import checkpoints
from melete.runs.run import Run

CLIP_NORM = 1.0
"""Largest gradient norm of a transformers model's step."""


Beginnings = Literal["none", "one", "many"]
"""How many different beginnings of rows a model can compute once in one pass."""


class Prefix(NamedTuple):
    """What stands before the rows of a batch: ids (G, P), and which of them each row follows, (B,)."""

    ids: Tensor
    of: Tensor


@dataclass(frozen=True)
class Lora:
    """A LoRA adapter (arXiv:2106.09685): its rank; alpha is twice the rank."""

    rank: int

    def to_dict(self) -> dict[str, int]:
        """What a checkpoint keeps and `hf.attach_lora` takes."""
        return {"rank": self.rank, "alpha": 2 * self.rank}


class Learner(Protocol):
    """What SFT and RL need of a model.

    Attributes:
        beginnings: see `Beginnings`.
    """

    lm: LM
    beginnings: Beginnings

    def loss(self, tokens: Tensor, targets: Tensor, prefix: Prefix | None = None) -> Tensor:
        """Sum of the cross-entropies of targets (B, T), -1 = none, given tokens (B, T); a scalar.

        `prefix` stands before the rows and is computed once.
        """
        ...

    def token_losses(self, tokens: Tensor, targets: Tensor, prefix: Prefix | None = None) -> Tensor:
        """Cross-entropy of each target, (B, T) fp32, 0 where there is none; `prefix` stands before the rows."""
        ...

    def step(self, scale: float) -> float:
        """Moves the weights along the gradient, clears it, and returns its norm.

        At norm 0, or when it is not finite, nothing was moved.
        """
        ...

    def weights(self) -> dict[str, Tensor]:
        """The weights as the engine takes them (`Engine.swap`); every rank must call it."""
        ...

    def save(self, run: Run, **parts: Any) -> None:
        """Writes a checkpoint: `stage`, `step`, `config`, `data_position`; every rank must call it."""
        ...

    def restore(self, folder: Path) -> None:
        """Takes weights and optimizer state of a checkpoint that `save` wrote."""
        ...


class OwnLearner:
    """Our own model under Muon and AdamW.

    Args:
        lm: loaded in fp32; its model is cast to the compute dtype here.
        rates: learning rates.
        world: the ranks that train together.
    """

    beginnings: Beginnings = "one"

    def __init__(self, lm: LM, rates: Rates, world: World = SINGLE) -> None:
        masters = {name: p.detach().clone() for name, p in lm.model.named_parameters()}
        self.lm = lm
        self.model = lm.model.to(compute_dtype(lm.device))
        self.optimizer = build_optimizer(self.model, rates, world)
        self.optimizer.load_master_weights(masters)

    def loss(self, tokens: Tensor, targets: Tensor, prefix: Prefix | None = None) -> Tensor:
        """See `Learner.loss`."""
        total: Tensor = self.model(tokens, targets, reduction="sum", prefix=_only(prefix))
        return total

    def token_losses(self, tokens: Tensor, targets: Tensor, prefix: Prefix | None = None) -> Tensor:
        """See `Learner.token_losses`."""
        return token_losses(self.lm, tokens, targets, prefix)

    def step(self, scale: float) -> float:
        """See `Learner.step`."""
        return self.optimizer.step(scale)

    def weights(self) -> dict[str, Tensor]:
        """See `Learner.weights`."""
        state: dict[str, Tensor] = self.model.state_dict()
        return state

    def save(self, run: Run, **parts: Any) -> None:
        """See `Learner.save`."""
        save_model(
            run,
            model_config=self.model.config,
            weights=self.optimizer.master_weights(),
            tokenizer=self.lm.tokenizer,
            state=self.optimizer.state_tensors(),
            **parts,
        )

    def restore(self, folder: Path) -> None:
        """See `Learner.restore`."""
        device = self.lm.device
        self.optimizer.load_master_weights(checkpoints.load(folder, "model", device))
        self.optimizer.load_state_tensors(checkpoints.load(folder, "state", device))


class TransformersLearner:
    """A transformers causal LM under AdamW, in full or by LoRA.

    Args:
        lm: the model; without LoRA in fp32.
        rate: AdamW's learning rate.
        lora: the adapter to train, None for full finetuning.
        world: the ranks that train together.
    """

    def __init__(self, lm: LM, rate: float, lora: Lora | None = None, world: World = SINGLE) -> None:
        if lora and not hasattr(lm.model, "peft_config"):
            hf.attach_lora(lm, **lora.to_dict())
        self.lm, self.rate, self.lora, self.world = lm, rate, lora, world
        self.model = lm.model
        # What a recurrent state has seen cannot be handed on as keys and values.
        self.beginnings: Beginnings = "none" if getattr(lm.model, "_is_stateful", False) else "many"
        self.names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)

    def loss(self, tokens: Tensor, targets: Tensor, prefix: Prefix | None = None) -> Tensor:
        """See `Learner.loss`."""
        return self.token_losses(tokens, targets, prefix).sum()

    def token_losses(self, tokens: Tensor, targets: Tensor, prefix: Prefix | None = None) -> Tensor:
        """See `Learner.token_losses`."""
        return token_losses(self.lm, tokens, targets, prefix)

    def step(self, scale: float) -> float:
        """See `Learner.step`."""
        for parameter in self.trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if self.world.size > 1:
                parameter.grad = self.world.sum(parameter.grad) / self.world.size
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained, CLIP_NORM))
        if norm > 0 and math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * scale
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def weights(self) -> dict[str, Tensor]:
        """See `Learner.weights`."""
        return hf.merged_state(self.model)

    def save(self, run: Run, **parts: Any) -> None:
        """See `Learner.save`."""
        config = {
            **parts.pop("config", {}),
            "stage": parts.pop("stage"),
            "family": "transformers",
            "base": self.lm.base,
            "lora": self.lora.to_dict() if self.lora else None,
        }
        run.save_checkpoint(
            kind="llm",
            config=config,
            tensors={"model": hf.weights(self.model), "state": self._state()},
            side_files=hf.side_files(self.lm),
            **parts,
        )

    def restore(self, folder: Path) -> None:
        """See `Learner.restore`."""
        tensors = checkpoints.load(folder, "model", self.lm.device)
        if self.lora:
            import peft

            peft.set_peft_model_state_dict(self.model, tensors)
        else:
            hf.load_weights(self.model, tensors, str(folder))
        state = checkpoints.load(folder, "state", self.lm.device)
        for name, parameter in zip(self.names, self.trained, strict=True):
            kept = {key: state[f"{name}.{key}"] for key in STATE if f"{name}.{key}" in state}
            if kept:
                kept["step"] = kept["step"].cpu()
                self.optimizer.state[parameter] = kept

    def _state(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": self.optimizer.state[parameter][key]
            for name, parameter in zip(self.names, self.trained, strict=True)
            if parameter in self.optimizer.state
            for key in STATE
        }


def token_losses(lm: LM, tokens: Tensor, targets: Tensor, prefix: Prefix | None = None) -> Tensor:
    """Cross-entropy of each target, (B, T) fp32, 0 where there is none.

    Of a transformers model logits are made only for columns in which some row has a target.

    Args:
        lm: the model.
        tokens: (B, T) int64.
        targets: (B, T) int64, -1 where there is none.
        prefix: stands before the rows and is computed once.
    """
    if lm.kind == "melete":
        own: Tensor = lm.model(tokens, targets, reduction="none", prefix=_only(prefix))
        return own
    columns = (targets != IGNORE).any(0).nonzero()[:, 0]
    losses = torch.zeros(targets.shape, dtype=torch.float32, device=tokens.device)
    if not len(columns):
        return losses
    dtype = compute_dtype(tokens.device)
    mixed = dtype != torch.float32
    with torch.autocast(tokens.device.type, dtype) if mixed else contextlib.nullcontext():
        logits = _logits(lm.model, tokens, columns, prefix)
    picked = targets[:, columns]
    flat = F.cross_entropy(
        logits.float().flatten(0, 1), picked.flatten(), ignore_index=IGNORE, reduction="none"
    )
    return losses.index_copy(1, columns, flat.view(picked.shape))


def _only(prefix: Prefix | None) -> Tensor | None:
    """The ids (P,) of the one beginning that our own model takes."""
    assert prefix is None or len(prefix.ids) == 1, "our own model takes one beginning a pass"
    return None if prefix is None else prefix.ids[0]


def _logits(model: Any, tokens: Tensor, columns: Tensor, prefix: Prefix | None) -> Tensor:
    """(B, columns, V) of a transformers model; keys and values of a beginning, with their gradient, serve its rows."""
    if prefix is None:
        return model(input_ids=tokens, logits_to_keep=columns, use_cache=False).logits  # type: ignore[no-any-return]
    from transformers import DynamicCache

    cache = DynamicCache()
    model(input_ids=prefix.ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_select_indices(prefix.of)
    return model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=columns).logits  # type: ignore[no-any-return]


STATE = ("exp_avg", "exp_avg_sq", "step")


def schedule(step: int, total: int, warmup: int) -> float:
    """Factor of the learning rates: linear warm-up, then linear to zero.

    Args:
        step: this step, from 0.
        total: all steps.
        warmup: steps of warm-up.
    """
    return min((step + 1) / (warmup + 1), (total - step) / max(1, total - warmup), 1.0)


def lora_of(lm: LM, rank: int) -> Lora | None:
    """The adapter that a config asks for.

    Raises:
        ConfigError: LoRA on our own model, or another rank than the checkpoint's adapter has.
    """
    had = (lm.record.config.get("lora") or {}).get("rank") if lm.record else None
    if rank and lm.kind == "melete":
        raise ConfigError(
            "--lora-rank is for open-weights models; our own are small and are trained in full.",
            next_step="Leave --lora-rank out.",
        )
    if rank and had and rank != had:
        raise ConfigError(
            f"The checkpoint has an adapter of rank {had}, and --lora-rank is {rank}.",
            next_step="Leave --lora-rank out to go on with its adapter, or export the merged model first.",
        )
    return Lora(int(rank or had or 0)) if rank or had else None
