"""Secrets are taken out of what is written down, and what is no secret stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete.runs.redact import HIDDEN, redact, redact_text

SECRETS = [
    "sk-abcDEF1234567890abcd", "sk-proj-abc_def-1234567890", "ghp_abcdefghij0123456789AB", "hf_abcdefghijklmnopqrstuv",
    "AKIAABCDEFGHIJKLMNOP", "xoxb-1234567890-abcdef", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-def_1",
    "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005",
]  # fmt: skip
HARMLESS = [
    "order O-1042 of 2026-10-11", "4111 1111 1111 1112", "tokens: 17", "max_tokens=128", "prompt_tokens: 3",
    "1763650000123", "the keyboard costs 12.50", "ask for the password", "key: value", "https://example.org/a?b=c",
    "phone +41 44 123 45 67",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_secret_is_found_by_its_look_in_any_text(secret: str) -> None:
    assert redact_text(f"it is {secret}, keep it") == f"it is {HIDDEN}, keep it"


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"password":"hunter2","n":1}', '{"password":"[redacted]","n":1}'),
        (r'{"a":"{\"api_key\":\"two words\",\"b\":2}"}', r'{"a":"{\"api_key\":\"[redacted]\",\"b\":2}"}'),
        ("password=hunter2&x=1", "password=[redacted]&x=1"),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer [redacted]"),
        ("X-Api-Key: abc", "X-Api-Key: [redacted]"),
        ("postgres://ana:hunter2@host/db", "postgres://ana:[redacted]@host/db"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----.", "[redacted]."),
        ('{"token": null, "secret": true}', '{"token": null, "secret": true}'),
    ],
)
def test_secret_is_found_by_its_name_in_text(text: str, left: str) -> None:
    assert redact_text(text) == left


@pytest.mark.parametrize(
    "key", ["password", "API_KEY", "access-token", "Authorization", "card_number", "cvv"]
)
def test_value_under_a_telling_key_is_hidden_whatever_it_is(key: str) -> None:
    assert redact({"a": [{key: value} for value in ("x", 17, {"y": 1})]}) == {"a": [{key: HIDDEN}] * 3}


def test_keys_that_only_look_alike_stay() -> None:
    values = {"tokens": 3, "key": "a", "keyboard": "b", "passenger": "c", "token": None}
    assert redact(values) == values


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9999, 9999) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES, st.sampled_from(SECRETS))
def test_no_place_of_a_value_hides_a_secret(value: Any, secret: str) -> None:
    text = json.dumps(redact({"outer": [value, f"see {secret} "], "password": "hunter2"}))
    assert secret not in text
    assert "hunter2" not in text


@given(VALUES)
def test_redacting_twice_changes_nothing_more(value: Any) -> None:
    assert redact(redact(value)) == redact(value)
