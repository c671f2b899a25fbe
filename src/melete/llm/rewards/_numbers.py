"""Numbers found in text and compared as numbers, so that `12.`, `12.0`, `$12` and `1,200` are what they mean."""

from __future__ import annotations

import re
from decimal import Decimal

NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|-?\.\d+")
TOLERANCE = Decimal("1e-4")
"""Relative: answers are often rounded to a few digits."""


def last_number(text: str) -> Decimal | None:
    """The last number of a text, or None; a hyphen between digits, as in `3-4`, is not a sign."""
    numbers = list(NUMBER.finditer(text.replace("−", "-")))
    if not numbers:
        return None
    written, start = numbers[-1].group(), numbers[-1].start()
    if written.startswith("-") and start and text[start - 1].isalnum():
        written = written[1:]
    return Decimal(written.replace(",", ""))


def final_answer(text: str) -> Decimal | None:
    """The number after the last `####` if there is one with a number, else the last number of the text."""
    marked = text.rpartition("####")[2].split("\n")[0] if "####" in text else ""
    number = NUMBER.search(marked)
    return last_number(number.group()) if number else last_number(text)


def same(a: Decimal | None, b: Decimal | None) -> bool:
    """Whether two numbers are equal up to rounding."""
    if a is None or b is None:
        return False
    if a == a.to_integral_value() and b == b.to_integral_value():
        return a == b
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))
