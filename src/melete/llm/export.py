"""A model of ours as a folder that others can use: transformers layout where that is faithful, else plain files.

A finetuned transformers model becomes a transformers folder, its adapter merged, which `AutoModelForCausalLM` and any
server of open-weights models load. Our own architecture (value embeddings, shortcuts from the embedding, capped logits)
has no class in transformers that computes it, so its folder is a Melete checkpoint without the optimizer, which Melete
loads by its path on any machine, with the tokenizer a second time in the format of the `tokenizers` library.

The folder is written beside its place and renamed when it is whole; a folder that holds something is never overwritten.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import torch

from melete.errors import ConfigError, MissingExtraError
from melete.llm import hf
from melete.llm import lm as lms
from melete.llm.checkpoint import KIND, TOKENIZER_FILE
from melete.llm.lm import LM
from melete.llm.tokenizer import Tokenizer
from melete.runs import checkpoints
from melete.settings import Settings

README = """This folder holds a language model trained with Melete.

    melete chat {name}          # or: melete serve --run {name}

model.safetensors and checkpoint.json are the weights and the shape, tokenizer.json is the tokenizer as Melete keeps it,
tokenizers/tokenizer.json is the same tokenizer for the `tokenizers` library. The architecture is Melete's own
(src/melete/llm/model.py); transformers has no class that computes it.
"""


def export(ref: str, to: Path, settings: Settings, dtype: torch.dtype = torch.float32) -> str:
    """Writes a model to a folder.

    Args:
        ref: what `lm.load` takes.
        to: folder to write; it must not exist or be empty.
        settings: where runs are.
        dtype: dtype of the written weights.

    Returns:
        What was written, in one sentence.

    Raises:
        ConfigError: the folder holds something.
        MeleteError: the model cannot be loaded.
    """
    to = to.resolve()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to} is not an empty folder.", next_step="Name a folder that does not exist yet.")
    lm = lms.load(ref, settings, torch.device("cpu"), dtype)
    scratch = to.with_name(f".tmp-{to.name}")
    if scratch.exists():
        shutil.rmtree(scratch)
    scratch.mkdir(parents=True)
    try:
        said = _transformers(lm, scratch, dtype) if lm.kind == "transformers" else _own(lm, scratch, to)
        if to.exists():
            to.rmdir()
        scratch.rename(to)
    finally:
        if scratch.exists():
            shutil.rmtree(scratch)
    return f"{to}: {said}"


def _transformers(lm: LM, folder: Path, dtype: torch.dtype) -> str:
    merged = hf.merged_state(lm.model)
    model = lm.model
    if hasattr(model, "peft_config"):
        plain = model.get_base_model()
        model = type(plain)(plain.config)
        model.generation_config = plain.generation_config
        hf.load_weights(model, merged, lm.source)
    model.to(dtype).save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return (
        f"a transformers folder ({type(model).__name__}); load it with AutoModelForCausalLM.from_pretrained"
    )


def _own(lm: LM, folder: Path, to: Path) -> str:
    config = dict(lm.record.config) if lm.record else {}
    path = checkpoints.save(
        folder,
        kind=KIND,
        step=lm.record.step if lm.record else 0,
        config=config,
        tensors={"model": {name: p.detach() for name, p in lm.model.named_parameters()}},
        side_files={TOKENIZER_FILE: lm.tokenizer.to_bytes()},
    )
    for file in path.iterdir():
        file.rename(folder / file.name)
    path.rmdir()
    (folder / "tokenizers").mkdir()
    tokenizers_format(lm.tokenizer).save(str(folder / "tokenizers" / "tokenizer.json"))
    (folder / "README.md").write_text(README.format(name=to.name), encoding="utf-8")
    return (
        "a Melete checkpoint (safetensors and JSON, without the optimizer), with the tokenizer also in the format of "
        f"the tokenizers library; it loads in Melete by its path, such as: melete chat {to.name}. Its architecture "
        "has no class in transformers"
    )


def tokenizers_format(tokenizer: Tokenizer) -> Any:
    """Our tokenizer as one of the `tokenizers` library; both give the same ids for any text.

    Raises:
        MissingExtraError: the library is not installed.
    """
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise MissingExtraError("tokenizers", "hf") from error
    from tokenizers import decoders, models, pre_tokenizers

    letters = _byte_letters()
    names = ["".join(letters[byte] for byte in token) for token in tokenizer.tokens]
    ranks = {token: rank for rank, token in enumerate(tokenizer.tokens)}
    halves = [_halves(token, ranks) for token in tokenizer.tokens if len(token) > 1]
    merges = [("".join(letters[byte] for byte in a), "".join(letters[byte] for byte in b)) for a, b in halves]
    vocabulary = {name: rank for rank, name in enumerate(names)}
    made = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(tokenizer.pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    ordered = sorted(tokenizer.special, key=tokenizer.special.__getitem__)
    made.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False) for name in ordered])
    return made


def _halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that were merged last into a token: what BPE with only the earlier merges leaves of it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [(ranks.get(a + b, len(ranks)), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def _byte_letters() -> dict[int, str]:
    """The printable letter that byte-level BPE writes for each byte (GPT-2's table)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
