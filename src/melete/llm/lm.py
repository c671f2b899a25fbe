"""A language model ready to use: weights, tokenizer, chat format and context in one record, loaded by name.

`load` takes whatever names a model: a run of ours (id, prefix, name, `id:step`, `latest`), a checkpoint folder, a
folder in transformers layout, or a hub id such as `Qwen/Qwen3-0.6B`. Everything above (engine, server, evaluation,
SFT, RL) sees an `LM` and does not ask where it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melete.errors import CheckpointError, MeleteError, UnknownNameError
from melete.records import CheckpointRecord
from melete.runs import checkpoints
from melete.settings import Settings

if TYPE_CHECKING:
    import torch

    from melete.llm.chat import ChatFormat


@dataclass
class LM:
    """A model with what is needed to talk to it.

    Attributes:
        model: `melete.llm.model.GPT`, or a transformers causal LM (adapter merged or attached).
        tokenizer: our `Tokenizer`, or a transformers tokenizer.
        chat: how conversations are written.
        context: most tokens a sequence may have, prompt and answer together.
        kind: `melete` or `transformers`.
        name: what to call it, such as the run's name.
        source: what `load` takes to load exactly this model again: a checkpoint folder, or a folder or hub id.
        base: for `transformers`, the folder or hub id that the weights came from first.
        record: the checkpoint it was loaded from, None for a transformers folder.
    """

    model: Any
    tokenizer: Any
    chat: ChatFormat
    context: int
    kind: str
    name: str
    source: str
    base: str | None = None
    record: CheckpointRecord | None = None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def bos(self) -> int | None:
        """The token that begins a text, or None if the tokenizer has none."""
        value = self.tokenizer.bos if self.kind == "melete" else self.tokenizer.bos_token_id
        return None if value is None else int(value)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without a beginning-of-text token; special tokens are not recognised in it."""
        if self.kind == "melete":
            ids: list[int] = self.tokenizer.encode(text)
            return ids
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included as text."""
        text: str = self.tokenizer.decode(list(ids))
        return text

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) of tokens (B, T)."""
        out = self.model(tokens)
        logits: torch.Tensor = out if self.kind == "melete" else out.logits
        return logits


def load(ref: str, settings: Settings, device: torch.device, dtype: torch.dtype | None = None) -> LM:
    """Loads a model by name.

    Args:
        ref: run reference, checkpoint folder, transformers folder, or hub id.
        settings: where runs are kept.
        device: where the weights go.
        dtype: dtype of the weights; None takes the fastest one for the device.

    Raises:
        UnknownNameError: nothing has that name.
        CheckpointError: the checkpoint is missing, corrupt, or not a language model.
        MeleteError: a hub id that is neither in the local cache nor reachable.
    """
    from melete.llm import hf
    from melete.llm.config import compute_dtype

    dtype = dtype or compute_dtype(device)
    if hf.is_transformers_folder(Path(ref)):
        return hf.load(ref, device, dtype)
    try:
        folder = checkpoint_folder(ref, settings)
    except UnknownNameError:
        if hf.looks_like_hub_id(ref):
            return hf.load(ref, device, dtype)
        raise
    return load_checkpoint(folder, device, dtype)


def checkpoint_folder(ref: str, settings: Settings) -> Path:
    """Folder of the checkpoint that `ref` names.

    Raises:
        UnknownNameError: nothing has that name.
    """
    from melete.runs import refs

    return refs.checkpoint(settings, ref, kinds=("llm",))


def load_checkpoint(folder: Path, device: torch.device, dtype: torch.dtype) -> LM:
    """Loads a checkpoint folder of ours, from pretraining, SFT or RL, of either kind of model.

    Raises:
        CheckpointError: it is missing, corrupt, or not a language model.
    """
    from melete.llm import hf

    record = checkpoints.read(folder)
    if record.kind != "llm":
        raise CheckpointError(
            f"{folder} holds a checkpoint of kind {record.kind!r}, not a language model.",
            next_step="List runs that hold one with: melete runs list",
        )
    try:
        if record.config.get("family") == "transformers":
            return hf.load_checkpoint(folder, record, device, dtype)
        return _load_own(folder, device, dtype)
    except (MeleteError, OSError):
        raise
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} cannot be loaded as a language model: {error}") from error


def _load_own(folder: Path, device: torch.device, dtype: torch.dtype) -> LM:
    from melete.llm.chat import MeleteChat
    from melete.llm.checkpoint import load_model

    model, tokenizer, record = load_model(folder, device, dtype)
    run_name = folder.parent.parent.name
    chat = MeleteChat(tokenizer)
    return LM(model, tokenizer, chat, model.config.context, "melete", run_name, str(folder), record=record)
