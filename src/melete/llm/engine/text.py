"""Turns tokens into text as they come: whole characters only, and nothing that may be the beginning of a stop string.

Special tokens have no text. Our tokenizer and byte-level ones of transformers are read from a table of bytes; others
are decoded over a sliding stretch of ids, which is slower and right for every tokenizer.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from melete.llm.lm import LM


class Decoder(Protocol):
    """Text of one request, piece by piece."""

    def add(self, token: int) -> str:
        """The characters that this token completes."""

    def rest(self) -> str:
        """What is left at the end: a broken character becomes U+FFFD."""


class ByteDecoder:
    """Decodes with a table of each token's bytes.

    Args:
        table: bytes of each id; empty for special tokens.
    """

    def __init__(self, table: list[bytes]) -> None:
        self._table = table
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """See `Decoder.add`."""
        return self._utf8.decode(self._table[token]) if token < len(self._table) else ""

    def rest(self) -> str:
        """See `Decoder.rest`."""
        return self._utf8.decode(b"", final=True)


class StretchDecoder:
    """Decodes the last few ids again with each new one, and gives the difference once it ends in a whole character."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._known = 0

    def add(self, token: int) -> str:
        """See `Decoder.add`."""
        self._ids.append(token)
        text = self._decode(self._ids)
        piece = text[len(self._decode(self._ids[: self._known])) :]
        if not piece or piece.endswith("\ufffd"):
            return ""
        # The last ids stay as context: some tokenizers write a space only between two tokens.
        self._ids = self._ids[self._known :]
        self._known = len(self._ids)
        return piece

    def rest(self) -> str:
        """See `Decoder.rest`."""
        return self._decode(self._ids)[len(self._decode(self._ids[: self._known])) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


class TextStream:
    """The text of one request with its stop strings.

    Args:
        decoder: turns ids into characters.
        stop: strings that end the request.
    """

    def __init__(self, decoder: Decoder, stop: tuple[str, ...]) -> None:
        self._decoder = decoder
        self._stop = stop
        self._held = ""

    def add(self, token: int | None, last: bool) -> tuple[str, bool]:
        """The text that is now certain, and whether a stop string was found.

        Args:
            token: the new id; None for one that has no text.
            last: nothing comes after it, so nothing is held back.
        """
        if token is not None:
            self._held += self._decoder.add(token)
        if last:
            self._held += self._decoder.rest()
        found = [self._held.find(text) for text in self._stop]
        places = [place for place in found if place >= 0]
        if places:
            return self._held[: min(places)], True
        keep = 0 if last else self._beginning()
        sure, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return sure, False

    def _beginning(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = min(len(self._held), max(map(len, self._stop), default=1) - 1)
        for n in range(longest, 0, -1):
            if any(text.startswith(self._held[-n:]) for text in self._stop):
                return n
        return 0


class TextSource:
    """Makes decoders for one model's tokenizer."""

    def __init__(self, lm: LM) -> None:
        self._tokenizer = lm.tokenizer
        self._table: list[bytes] | None = None
        if self._tokenizer is not None:
            ours = lm.kind == "melete"
            self._table = list(self._tokenizer.tokens) if ours else _byte_level_table(self._tokenizer)

    def stream(self, stop: tuple[str, ...]) -> TextStream | None:
        """A new stream, or None for a model without a tokenizer."""
        if self._table is not None:
            return TextStream(ByteDecoder(self._table), stop)
        return None if self._tokenizer is None else TextStream(StretchDecoder(self._tokenizer), stop)


def _byte_level_table(tokenizer: Any) -> list[bytes] | None:
    """Bytes of each id of a byte-level BPE tokenizer (GPT-2's alphabet), or None if it is of another kind."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.decoder).__name__ != "ByteLevel":
        return None
    # GPT-2 writes each byte as a printable character: itself where it is one, else one from 256 on.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    byte_of = {chr(b): b for b in plain}
    byte_of.update({chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in set(plain))})
    special = set(tokenizer.all_special_ids)
    added = {index: token for token, index in tokenizer.get_added_vocab().items()}
    table = []
    for index, token in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
        if index in special or token is None:
            table.append(b"")
        elif index in added:
            table.append(added[index].encode())
        else:
            table.append(bytes(byte_of[c] for c in token if c in byte_of))
    return table
