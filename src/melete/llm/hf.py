"""Open-weights models through transformers: load a folder or hub id, attach LoRA, keep them as checkpoints of ours.

A checkpoint of such a model has `family: transformers` in its config, the base's `config.json` and tokenizer files
as side files, and in `model.safetensors` either the whole model or, with LoRA, the adapter alone; the base is then
found again by the folder or hub id it came from. Nothing is downloaded unless a hub id is asked for, and
`HF_HUB_OFFLINE` is respected.

Limits: causal language models that transformers builds itself (no remote code), from safetensors (no pickles); LoRA
goes on every linear layer of the blocks (`all-linear`), which is what Schulman et al. 2025, "LoRA Without Regret",
found to match full finetuning.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melete.errors import CheckpointError, MeleteError, MissingExtraError
from melete.records import CheckpointRecord
from melete.runs import checkpoints

if TYPE_CHECKING:
    import torch

    from melete.llm.lm import LM


def is_transformers_folder(folder: Path) -> bool:
    """Whether a folder is in transformers layout (and not a checkpoint of ours)."""
    return (folder / "config.json").is_file() and not (folder / "checkpoint.json").is_file()


def looks_like_hub_id(ref: str) -> bool:
    """Whether a name could be a hub id, such as `Qwen/Qwen3-0.6B`."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", ref) is not None


def load(base: str, device: torch.device, dtype: torch.dtype) -> LM:
    """Loads a transformers causal LM from a folder or the hub.

    Raises:
        MeleteError: it is neither a folder, nor in the local cache, nor reachable, or not a causal LM.
        TokenizerError: it has no usable chat template.
    """
    transformers = _transformers()
    import safetensors

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise MeleteError(
            f"The model {base!r} could not be loaded: {reason}",
            allowed="A folder in transformers layout, or a hub id of a causal language model.",
            next_step=f"With network, fetch it once with: hf download {base} (HF_HUB_OFFLINE=1 keeps to the local "
            "cache); without, copy its folder here and name the folder.",
        ) from error
    return _lm(model.to(device), tokenizer, base, Path(base).name)


def load_checkpoint(folder: Path, record: CheckpointRecord, device: torch.device, dtype: torch.dtype) -> LM:
    """Loads a checkpoint of ours whose family is `transformers`; a LoRA adapter is attached, not merged.

    Raises:
        CheckpointError: tensors are missing or the base of an adapter cannot be found.
        MeleteError: the base of an adapter cannot be loaded.
    """
    tensors = checkpoints.load(folder, "model")
    base, lora = str(record.config["base"]), record.config.get("lora")
    name = folder.parent.parent.name
    if lora:
        lm = load(base, device, dtype)
        attach_lora(lm, **lora)
        import peft

        outcome: Any = peft.set_peft_model_state_dict(lm.model, tensors)
        if outcome.unexpected_keys:
            raise CheckpointError(f"{folder} holds an adapter that does not fit {base}.")
        lm.name, lm.source, lm.record = name, str(folder), record
        return lm
    transformers = _transformers()
    with tempfile.TemporaryDirectory() as scratch:
        for file in side_file_names(record):
            (Path(scratch) / file).write_bytes(checkpoints.read_file(folder, file))
        config = transformers.AutoConfig.from_pretrained(scratch)
        tokenizer = transformers.AutoTokenizer.from_pretrained(scratch)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        if (Path(scratch) / "generation_config.json").is_file():
            model.generation_config = transformers.GenerationConfig.from_pretrained(scratch)
    load_weights(model, tensors, str(folder))
    lm = _lm(model.to(device), tokenizer, base, name)
    lm.source, lm.record = str(folder), record
    return lm


def load_weights(model: Any, tensors: dict[str, torch.Tensor], source: str) -> None:
    """Puts the tensors of `weights` back; tied weights are stored once.

    Raises:
        CheckpointError: a tensor is missing or unknown.
    """
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    by_name = dict(model.named_parameters(remove_duplicate=False))
    stored = {by_name[name].data_ptr() for name in tensors if name in by_name}
    lost = [name for name in missing if name in by_name and by_name[name].data_ptr() not in stored]
    if lost or unexpected:
        raise CheckpointError(f"{source} does not fit its model: {', '.join([*lost, *unexpected][:4])}.")


def attach_lora(lm: LM, rank: int, alpha: int) -> None:
    """Puts a LoRA adapter on every linear layer of the blocks; only the adapter stays trainable."""
    try:
        import peft
    except ModuleNotFoundError as error:
        raise MissingExtraError("peft", "hf") from error
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    lm.model = peft.get_peft_model(lm.model, config)
    for parameter in lm.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def weights(model: Any) -> dict[str, torch.Tensor]:
    """Tensors to save: the adapter alone if there is one, else every parameter and buffer once (tied ones once)."""
    if hasattr(model, "peft_config"):
        import peft

        adapter: dict[str, torch.Tensor] = peft.get_peft_model_state_dict(model)
        return adapter
    seen: set[int] = set()
    unique = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            unique[name] = tensor
    return unique


def merged_state(model: Any) -> dict[str, torch.Tensor]:
    """State dict of the plain model with the adapter folded in, for the engine; the model itself is left as it is."""
    if not hasattr(model, "peft_config"):
        state: dict[str, torch.Tensor] = model.state_dict()
        return state
    # Sums are made aside: peft's merge and unmerge would round the base's weights a little each time.
    deltas = {
        f"{name}.weight": module.get_delta_weight("default")
        for name, module in model.get_base_model().named_modules()
        if hasattr(module, "get_delta_weight")
    }
    merged = {}
    for name, tensor in model.get_base_model().state_dict().items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        delta = deltas.get(plain)
        merged[plain] = tensor if delta is None else (tensor.float() + delta.float()).to(tensor.dtype)
    return merged


def side_files(lm: LM) -> dict[str, bytes]:
    """`config.json`, `generation_config.json` and the tokenizer's files, as a checkpoint keeps them."""
    plain = lm.model.get_base_model() if hasattr(lm.model, "peft_config") else lm.model
    with tempfile.TemporaryDirectory() as scratch:
        plain.config.save_pretrained(scratch)
        if getattr(plain, "generation_config", None) is not None:
            plain.generation_config.save_pretrained(scratch)
        lm.tokenizer.save_pretrained(scratch)
        return {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir()) if path.is_file()}


def side_file_names(record: CheckpointRecord) -> list[str]:
    """Names of a checkpoint's side files."""
    return [name for name in record.files if not name.endswith(".safetensors")]


def _lm(model: Any, tokenizer: Any, base: str, name: str) -> LM:
    from melete.llm.chat import TemplateChat
    from melete.llm.lm import LM

    model.eval()
    ends = getattr(model.generation_config, "eos_token_id", None)
    stop_ids = ends if isinstance(ends, list) else [ends] if ends is not None else []
    text_config = model.config.get_text_config()
    context = int(getattr(text_config, "max_position_embeddings", 2048))
    return LM(model, tokenizer, TemplateChat(tokenizer, stop_ids), context, "transformers", name, base, base)


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError("transformers", "hf") from error
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return transformers
