"""Tokenizers and datasets together: training one on a dataset, finding one that was, comparing bytes per token.

A tokenizer run keeps `tokenizer.json` in its folder and in a checkpoint of kind `tokenizer` that names the dataset's
fingerprint. Pretraining without a named tokenizer takes the newest one that was trained on its text with the asked
size, else trains one. GPT-2 and cl100k stand beside ours only where tiktoken has them cached: nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tiktoken

from melete import datasets
from melete.datasets import Dataset
from melete.errors import CheckpointError, TokenizerError
from melete.llm.chat import plain_text
from melete.llm.checkpoint import TOKENIZER_FILE, load_tokenizer
from melete.llm.tokenizer import PATTERN, Tokenizer
from melete.runs import checkpoints, refs
from melete.runs.run import Run
from melete.settings import Settings

KIND = "tokenizer"
DOCUMENT_CHARS = 10_000
MAX_CHARS = 20_000_000
CONVERSATION_SHARE = 0.15
PEERS = {
    "gpt2": (
        "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe",
        "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json",
    ),
    "cl100k_base": ("https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken",),
}
"""Encodings to compare with, and the files that tiktoken caches for each under the sha1 of its address."""


def train_on(
    dataset: Dataset,
    vocab_size: int,
    max_chars: int = MAX_CHARS,
    further: Dataset | None = None,
    pattern: str = PATTERN,
) -> Tokenizer:
    """Learns a tokenizer from a dataset's training text and a share of tool conversations.

    Learned from books alone, 4,096 tokens need 348 for a conversation of `toolcalls`; with the share 166, and books
    are written with 3.55 instead of 3.60 bytes per token.

    Args:
        dataset: a text dataset.
        vocab_size: size of the vocabulary with its special tokens.
        max_chars: characters read; of one document at most 10,000, so that a few long ones do not decide.
        further: conversations that get a share of their own, such as the demonstrations of a scenario.
        pattern: regular expression that splits text before merging.
    """
    texts = _excerpts(dataset, max_chars)
    for source in (datasets.open("toolcalls"), further):
        texts = _with_conversations(texts, source) if source else texts
    return Tokenizer.train(texts, vocab_size, pattern)


def _with_conversations(texts: Iterator[str], source: Dataset) -> Iterator[str]:
    conversations = source.conversations("train")
    owed = 0.0
    for text in texts:
        yield text
        owed += len(text) * CONVERSATION_SHARE
        while owed > 0 and (conversation := next(conversations, None)) is not None:
            plain = plain_text(conversation)
            yield plain
            owed -= len(plain)


def _excerpts(dataset: Dataset, max_chars: int) -> Iterator[str]:
    chars = 0
    for text in dataset.documents("train"):
        yield text[:DOCUMENT_CHARS]
        chars += min(len(text), DOCUMENT_CHARS)
        if chars >= max_chars:
            return


def save_tokenizer(run: Run, tokenizer: Tokenizer, dataset: Dataset) -> None:
    """Keeps a tokenizer in the run's folder and as a checkpoint."""
    if run.folder is None:
        return
    tokenizer.save(run.folder / TOKENIZER_FILE)
    run.save_checkpoint(
        kind=KIND,
        step=0,
        config={
            "dataset": dataset.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "tokenizer": tokenizer.fingerprint,
        },
        tensors={},
        side_files={TOKENIZER_FILE: tokenizer.to_bytes()},
    )


def find(ref: str, settings: Settings) -> Tokenizer:
    """The tokenizer that a file, a tokenizer run or a model run names.

    Raises:
        TokenizerError: the file cannot be read.
        UnknownNameError: no run of that name.
    """
    if Path(ref).is_file():
        return Tokenizer.load(Path(ref))
    return load_tokenizer(refs.checkpoint(settings, ref, kinds=(KIND, "llm")))


def find_or_train(ref: str, dataset: Dataset, vocab_size: int, run: Run, settings: Settings) -> Tokenizer:
    """The named tokenizer, or the newest one trained on this text with this size, or a new one.

    A tokenizer that is trained here is kept in the run's folder, where a resume finds it.
    """
    own = run.source / TOKENIZER_FILE if run.source else None
    if own is not None and own.is_file():
        return Tokenizer.load(own)
    if ref:
        tokenizer = find(ref, settings)
    elif (fitting := _newest_fitting(dataset, vocab_size, settings)) is not None:
        tokenizer = load_tokenizer(fitting)
        run.say(f"Tokenizer: {fitting.parent.parent.name}, trained on this text.")
    else:
        run.say(f"Tokenizer: training one of {vocab_size:,} tokens on this text.")
        with run.timed("training the tokenizer"):
            tokenizer = train_on(dataset, vocab_size)
    if run.folder is not None:
        tokenizer.save(run.folder / TOKENIZER_FILE)
    return tokenizer


def _newest_fitting(dataset: Dataset, vocab_size: int, settings: Settings) -> Path | None:
    for folder in sorted(settings.runs.glob("*/checkpoints/step_00000000"), reverse=True):
        try:
            record = checkpoints.read(folder)
        except CheckpointError:
            continue
        wanted = {"dataset": dataset.fingerprint, "vocab_size": vocab_size}
        if record.kind == KIND and wanted.items() <= record.config.items():
            return folder
    return None


def bytes_per_token(tokenizer: Tokenizer | tiktoken.Encoding, texts: list[str]) -> float:
    """Bytes of UTF-8 text that a token stands for on average: the compression of a vocabulary."""
    encode = tokenizer.encode if isinstance(tokenizer, Tokenizer) else tokenizer.encode_ordinary
    count = sum(len(encode(text)) for text in texts)
    return sum(len(text.encode()) for text in texts) / max(1, count)


def peer(name: str) -> tiktoken.Encoding | None:
    """GPT-2's or cl100k's encoding if tiktoken has it cached here, else None."""
    cache = Path(
        os.environ.get("TIKTOKEN_CACHE_DIR")
        or os.environ.get("DATA_GYM_CACHE_DIR")
        or os.path.join(tempfile.gettempdir(), "data-gym-cache")
    )
    if all((cache / hashlib.sha1(url.encode()).hexdigest()).is_file() for url in PEERS[name]):
        return tiktoken.get_encoding(name)
    return None


def check_round_trip(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Compares texts with their decoded tokens.

    Raises:
        TokenizerError: a text does not come back as it was.
    """
    for text in texts:
        if tokenizer.decode(tokenizer.encode(text)) != text:
            raise TokenizerError(
                f"The tokenizer does not give this text back: {text[:60]!r}.",
                next_step="This is a fault of Melete: please report it with the text.",
            )
