"""The tokenizer gives every text back, keeps special tokens out of text, and knows which model it belongs to."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melete.errors import ConfigError, TokenizerError
from melete.llm.tokenizer import ONE_DIGIT, SPECIAL, Tokenizer

TEXTS = [
    "the cat sat on the mat, and then the cat ran. 123 + 4567 = 4690",
    "def f(x):\n    return x  # ok\n",
] * 8


@cache
def small() -> Tokenizer:
    return Tokenizer.train(TEXTS, 320)


@given(st.text(max_size=80))
@settings(max_examples=60, deadline=None)
def test_decode_of_encoded_text_returns_the_text(text: str) -> None:
    assert small().decode(small().encode(text)) == text


@given(st.lists(st.sampled_from([*SPECIAL, "a", " ", "<|", "bos|>"]), max_size=8).map("".join))
@settings(max_examples=40, deadline=None)
def test_encode_of_text_that_spells_special_tokens_yields_none(text: str) -> None:
    assert all(token < small().first_special for token in small().encode(text))


@given(st.lists(st.text(max_size=30) | st.just("x <|bos|> y"), max_size=6))
@settings(max_examples=40, deadline=None)
def test_encode_documents_equals_bos_and_text_one_by_one(texts: list[str]) -> None:
    expected = [token for text in texts for token in (small().bos, *small().encode(text))]
    assert small().encode_documents(texts).tolist() == expected


def test_token_bytes_of_a_text_sum_to_its_utf8_length() -> None:
    text = "naïve café: 12345 🌍"
    assert small().token_bytes[small().encode(text)].sum() == len(text.encode())


def test_token_bytes_of_special_tokens_are_zero() -> None:
    assert np.all(small().token_bytes[-len(SPECIAL) :] == 0)


def test_numbers_are_split_into_at_most_two_digits() -> None:
    pieces = [small().decode([token]) for token in small().encode("1234567")]
    assert max(map(len, pieces)) <= 2


def test_numbers_of_a_one_digit_tokenizer_are_single_digits_after_loading_too() -> None:
    tokenizer = Tokenizer.from_bytes(Tokenizer.train(["12 34 12 34"] * 9, 270, ONE_DIGIT).to_bytes())
    assert [tokenizer.decode([token]) for token in tokenizer.encode("1234")] == ["1", "2", "3", "4"]


def test_saved_file_loads_with_the_same_fingerprint_and_ids(tmp_path: Path) -> None:
    small().save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.fingerprint == small().fingerprint
    assert loaded.encode(TEXTS[0]) == small().encode(TEXTS[0])


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"format": "other"}', b"\xff\xfe"])
def test_from_bytes_of_something_else_is_a_tokenizer_error(data: bytes) -> None:
    with pytest.raises(TokenizerError, match="is not a tokenizer"):
        Tokenizer.from_bytes(data)


def test_train_with_too_small_a_vocabulary_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="too small"):
        Tokenizer.train(TEXTS, 100)


def test_check_fits_with_another_vocabulary_size_names_both() -> None:
    with pytest.raises(TokenizerError, match="has 305 tokens, the model 4,096"):
        small().check_fits(4096)


def test_check_fits_with_another_fingerprint_is_refused() -> None:
    with pytest.raises(TokenizerError, match="does not fit"):
        small().check_fits(305, "0" * 64)
