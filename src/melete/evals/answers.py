"""Answers as numbers: what a text says as its result, exactly, so that `12`, `12.`, `12.0` and `$12` are the same."""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = re.compile(
    r"(?<![\w.])(?P<minus>[-\u2212]?)\s?[$€£]?\s?(?P<sign>[-\u2212]?)"
    r"(?P<body>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:\s?/\s?(?P<below>\d+)(?![\d.,]*\d*/))?"
)
_MARK = re.compile(r"####\s*|\\boxed\{|answer\s*(?:is|:|=)\s*", re.IGNORECASE)


def number(text: str) -> Fraction | None:
    """The first number in a text; None if it has none.

    Understands thousands commas, a currency sign, a sign on either side of it, decimals and simple fractions. Stays
    with what is written: `50%` is 50.
    """
    match = _NUMBER.search(text)
    return None if match is None else _value(match)


def final_number(text: str) -> Fraction | None:
    """The number a worked answer ends with: after the last `####`, `\\boxed{` or "answer is", else the last."""
    marks = list(_MARK.finditer(text))
    if marks and (marked := number(text[marks[-1].end() :])) is not None:
        return marked
    found = list(_NUMBER.finditer(text))
    return _value(found[-1]) if found else None


def _value(match: re.Match[str]) -> Fraction | None:
    value = Fraction(match["body"].replace(",", ""))
    if match["below"] is not None:
        if int(match["below"]) == 0:
            return None
        value /= int(match["below"])
    return -value if match["minus"] or match["sign"] else value
