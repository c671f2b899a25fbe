"""A byte-level BPE tokenizer in GPT-4 style: rustbpe trains it, tiktoken encodes with it, one JSON file keeps it.

Decisions: numbers are split into at most two digits, which suits vocabularies of 4,096 to 65,536; the special tokens
of the chat layout stand at the end of the vocabulary in a fixed order, so that an id below `first_special` is always
text; text never becomes a special token, whatever it contains. The file holds base64, no pickle, and the fingerprint
is the sha256 of its canonical form, so a model can tell whether a tokenizer is its own.

Limit: merges are learned within one split of the text, never across spaces.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rustbpe  # type: ignore[import-untyped]
import tiktoken

from melete.errors import ConfigError, TokenizerError

SPECIAL = (
    "<|bos|>",
    "<|system|>",
    "<|tools|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool_call|>",
    "<|tool_result|>",
    "<|end|>",
)
"""Special tokens in order; they take the last ids of every vocabulary."""

PATTERN = "|".join(
    (
        r"'(?i:[sdmt]|ll|ve|re)",
        r"[^\r\n\p{L}\p{N}]?+\p{L}+",
        r"\p{N}{1,2}",
        r" ?[^\s\p{L}\p{N}]++[\r\n]*",
        r"\s*[\r\n]",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""The split of cl100k (tiktoken, `openai_public.py`) with numbers of at most two digits."""

ONE_DIGIT = PATTERN.replace(r"\p{N}{1,2}", r"\p{N}")
"""The same with each digit a token of its own: a small model copies numbers that it has never seen more surely."""

SMALLEST_VOCABULARY = 256 + len(SPECIAL)
FORMAT = "melete-bpe"


class Tokenizer:
    """Text to token ids and back; see the head of this file.

    Args:
        tokens: bytes of each text token in the order of their ids; the first 256 are the single bytes.
        pattern: regular expression that splits text before merging.
    """

    def __init__(self, tokens: Sequence[bytes], pattern: str = PATTERN) -> None:
        self.tokens = list(tokens)
        self.pattern = pattern
        self.first_special = len(self.tokens)
        self.special: dict[str, int] = {name: self.first_special + i for i, name in enumerate(SPECIAL)}
        self.bos = self.special["<|bos|>"]
        self.end = self.special["<|end|>"]
        self.vocab_size = self.first_special + len(SPECIAL)
        self._encoding = tiktoken.Encoding(
            name=FORMAT,
            pat_str=pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(self.tokens)},
            special_tokens=self.special,
        )

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, pattern: str = PATTERN) -> Tokenizer:
        """Learns merges from texts.

        Args:
            texts: documents.
            vocab_size: size of the vocabulary with its special tokens; little text may give a smaller one.
            pattern: regular expression that splits text before merging.

        Raises:
            ConfigError: `vocab_size` has no room for the 256 bytes and the special tokens.
        """
        if vocab_size < SMALLEST_VOCABULARY:
            raise ConfigError(
                f"A vocabulary of {vocab_size:,} is too small.",
                allowed=f"At least {SMALLEST_VOCABULARY}: 256 bytes and {len(SPECIAL)} special tokens.",
            )
        trainer = rustbpe.Tokenizer()
        trainer.train_from_iterator(iter(texts), vocab_size - len(SPECIAL), pattern=pattern)
        ranks = sorted((rank, bytes(token)) for token, rank in trainer.get_mergeable_ranks())
        return cls([token for _, token in ranks], pattern)

    # -- text to ids and back ---------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; no special token ever comes out of text."""
        return self._encoding.encode_ordinary(text)

    def encode_batch(self, texts: Sequence[str], threads: int = 2) -> list[list[int]]:
        """Token ids of each text, on several threads."""
        return self._encoding.encode_ordinary_batch(list(texts), num_threads=threads)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """One stream of ids, (N,) int32: `<|bos|>` and then the text, for each text.

        All texts are encoded in one call, which spares a Python list per document. A text that spells a special
        token would be cut at it there, so such texts are encoded by themselves.
        """
        if any("<|bos|>" in text for text in texts):
            parts = [np.array([self.bos, *self.encode(text)], dtype=np.int32) for text in texts]
            return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        joined = "".join("<|bos|>" + text for text in texts)
        ids = self._encoding.encode_to_numpy(joined, allowed_special={"<|bos|>"}, disallowed_special=())
        return ids.astype(np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens appear by name, broken UTF-8 as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Bytes of ids; special tokens appear by name."""
        return self._encoding.decode_bytes(list(ids))

    @cached_property
    def token_bytes(self) -> np.ndarray:
        """Bytes of text that each id stands for, (V,) int32; 0 for special tokens."""
        return np.array([len(token) for token in self.tokens] + [0] * len(SPECIAL), dtype=np.int32)

    # -- the file ---------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The JSON file."""
        contents = {
            "format": FORMAT,
            "version": 1,
            "pattern": self.pattern,
            "special": list(SPECIAL),
            "tokens": [base64.b64encode(token).decode() for token in self.tokens],
        }
        return json.dumps(contents, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "tokenizer.json") -> Tokenizer:
        """Reads the JSON file.

        Args:
            data: its bytes.
            source: name for the error message.

        Raises:
            TokenizerError: it is not a tokenizer file of ours.
        """
        try:
            contents: dict[str, Any] = json.loads(data)
            if contents["format"] != FORMAT or contents["special"] != list(SPECIAL):
                raise ValueError("another format or other special tokens")
            tokens = [base64.b64decode(token, validate=True) for token in contents["tokens"]]
            return cls(tokens, contents["pattern"])
        except (ValueError, KeyError, TypeError) as error:
            raise TokenizerError(
                f"{source} is not a tokenizer of Melete ({error}).",
                next_step="Train one with: melete llm tokenizer",
            ) from error

    def save(self, path: Path) -> None:
        """Writes the JSON file."""
        path.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Reads the JSON file.

        Raises:
            TokenizerError: it is missing or not a tokenizer file of ours.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TokenizerError(f"{path} cannot be read ({error.strerror}).") from error
        return cls.from_bytes(data, str(path))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the file: two tokenizers with the same fingerprint give the same ids."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def check_fits(self, vocab_size: int, fingerprint: str | None = None) -> None:
        """Compares this tokenizer with what a model was trained with.

        Raises:
            TokenizerError: another vocabulary size, or another fingerprint.
        """
        if self.vocab_size != vocab_size:
            found = f"has {self.vocab_size:,} tokens, the model {vocab_size:,}"
        elif fingerprint is not None and fingerprint != self.fingerprint:
            found = f"{self.fingerprint[:12]} is not the model's {fingerprint[:12]}"
        else:
            return
        raise TokenizerError(
            f"The tokenizer does not fit the model: it {found}.",
            allowed="A model works only with the tokenizer that it was trained with.",
            next_step="Use the tokenizer.json in the model's checkpoint folder.",
        )
