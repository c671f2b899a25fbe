"""Numbers in answers: compared as numbers, found where an answer states them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete.evals.answers import final_number, number


@pytest.mark.parametrize(
    "text", ["12", "12.", "12.0", "$12", "$ 12.00", "is 12 apples", "+12".strip("+"), "24/2", "12!"]
)
def test_number_however_it_is_written_is_twelve(text: str) -> None:
    assert number(text) == 12


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234,567.5", Fraction("1234567.5")),
        ("-$5", Fraction(-5)),
        ("$-5", Fraction(-5)),
        ("−3", Fraction(-3)),
        (".5", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        ("1/0", None),
        ("none here", None),
        ("", None),
    ],
)
def test_number_with_signs_commas_and_fractions(text: str, value: Fraction | None) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 2 = 4\n#### 4", 4),
        ("#### 1\nno, wait\n#### 2 (not 3)", 2),
        ("So \\boxed{7} of 9", 7),
        ("The answer is $1,000. I counted 3 times.", 1000),
        ("First 3, then 5, so 8", 8),
        ("#### none, but 6", 6),
    ],
)
def test_final_number_is_the_stated_one_else_the_last(text: str, value: int) -> None:
    assert final_number(text) == value


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_every_decimal_is_read_back_with_and_without_commas(value: object) -> None:
    assert number(f"{value:f}") == Fraction(str(value))
    assert number(f"{value:,f}") == Fraction(str(value))
