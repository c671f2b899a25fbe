"""Language-model checkpoints: fp32 weights, the model's shape and the tokenizer, in one folder.

All three training stages (pretrain, sft, rl) write kind `llm` with `config = {"stage": …, "model": GPTConfig,
"tokenizer": fingerprint, …}` and the side file `tokenizer.json`; whatever reads a model reads all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melete.errors import CheckpointError
from melete.llm.config import GPTConfig
from melete.llm.model import GPT
from melete.llm.tokenizer import Tokenizer
from melete.records import CheckpointRecord
from melete.runs import checkpoints
from melete.runs.run import Run

KIND = "llm"
TOKENIZER_FILE = "tokenizer.json"


def save_model(
    run: Run,
    *,
    stage: str,
    step: int,
    model_config: GPTConfig,
    weights: dict[str, Tensor],
    tokenizer: Tokenizer,
    state: dict[str, Tensor] | None = None,
    data_position: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
) -> Path | None:
    """Saves a model into the run's folder; a silent run saves nothing.

    Args:
        run: the run.
        stage: `pretrain`, `sft` or `rl`.
        step: optimizer steps done.
        model_config: the model's shape.
        weights: fp32 tensors with the names of `GPT.state_dict()`; `Optimizer.master_weights()` gives them.
        tokenizer: the model's tokenizer.
        state: optimizer and RNG tensors, needed to resume.
        data_position: exact position in the data.
        config: further values to keep.
    """
    return run.save_checkpoint(
        kind=KIND,
        step=step,
        config={
            **(config or {}),
            "stage": stage,
            "model": model_config.to_dict(),
            "tokenizer": tokenizer.fingerprint,
        },
        tensors={"model": weights, **({"state": state} if state is not None else {})},
        data_position=data_position,
        side_files={TOKENIZER_FILE: tokenizer.to_bytes()},
    )


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder.

    Raises:
        CheckpointError: the folder has none, or it is corrupt.
    """
    return Tokenizer.from_bytes(checkpoints.read_file(folder, TOKENIZER_FILE), str(folder / TOKENIZER_FILE))


def load_model(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[GPT, Tokenizer, CheckpointRecord]:
    """Loads a model with its tokenizer, in evaluation mode.

    Raises:
        CheckpointError: the folder is no language-model checkpoint, or it is corrupt.
        TokenizerError: its tokenizer does not fit the model.
    """
    record = checkpoints.read(folder)
    if record.kind != KIND:
        raise CheckpointError(
            f"{folder} holds a checkpoint of kind {record.kind!r}.",
            allowed=f"A language model has kind {KIND!r}.",
            next_step="List runs with: melete runs list",
        )
    config = GPTConfig.from_dict(record.config["model"])
    tokenizer = load_tokenizer(folder)
    tokenizer.check_fits(config.vocab_size, record.config.get("tokenizer"))
    model = GPT(config)
    try:
        model.load_state_dict(checkpoints.load(folder, "model"))
    except RuntimeError as error:
        raise CheckpointError(f"The weights in {folder} do not fit the model's shape: {error}") from error
    return model.to(device=device, dtype=dtype).eval(), tokenizer, record
