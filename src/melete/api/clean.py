"""Makes what was read from a file fit for an answer: no number that JSON has no word for, no half characters, no end.

Names, logs and captions come from programs and data that nobody checked. Their text stays as it is (whoever shows it
escapes it), only its length is bounded.
"""

from __future__ import annotations

import math
from typing import Any

LONGEST = 20_000
"""Characters of one text."""
DEEPEST = 40
"""Levels of lists and objects."""


def clean(value: Any, longest: int = LONGEST, deepest: int = DEEPEST) -> Any:
    """The value as JSON can hold it: NaN and infinity are None, a text that is too long ends with `…`."""
    if isinstance(value, str):
        return text(value, longest)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if deepest == 0:
        return "…"
    if isinstance(value, dict):
        return {text(str(key), longest): clean(item, longest, deepest - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item, longest, deepest - 1) for item in value]
    return text(str(value), longest)


def text(value: str, longest: int = LONGEST) -> str:
    """Text of at most so many characters, each a whole one."""
    value = value if len(value) <= longest else value[: longest - 1] + "…"
    return value.encode("utf-8", "replace").decode()
