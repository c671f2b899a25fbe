"""Draws values that a JSON schema allows, for samples of an action space and for fuzzing a tool.

Handles the keywords that tools use (see `schema.py`) and regular expressions without look-around and back-references. A
schema that it cannot draw from is an error and never a wrong value: every value drawn is checked.
"""

from __future__ import annotations

import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parser  # type: ignore[import-not-found]
import string
from collections.abc import Mapping
from typing import Any

import numpy as np

from melete.actions.schema import compile_schema
from melete.errors import ScenarioError

LETTERS = string.ascii_letters + string.digits + " _-"
MOST_REPEATS = 6
TRIES = 8
_CATEGORIES = {
    sre.CATEGORY_DIGIT: string.digits,
    sre.CATEGORY_WORD: string.ascii_letters + string.digits + "_",
    sre.CATEGORY_SPACE: " ",
    sre.CATEGORY_NOT_DIGIT: string.ascii_letters,
    sre.CATEGORY_NOT_WORD: " -",
    sre.CATEGORY_NOT_SPACE: string.ascii_letters,
}


def draw(schema: Mapping[str, Any], random: np.random.Generator) -> Any:
    """A value that the schema allows.

    Raises:
        ScenarioError: the schema has a keyword or a pattern that this file cannot draw from.
    """
    problems = compile_schema(schema)
    found: list[str] = []
    for _ in range(TRIES):
        value = _draw(schema, random)
        found = problems(value)
        if not found:
            return value
    raise ScenarioError(
        f"No value could be drawn from a schema: {' '.join(found)}", next_step="Give the schema an 'enum'."
    )


def _draw(schema: Mapping[str, Any], random: np.random.Generator) -> Any:
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][int(random.integers(len(schema["enum"])))]
    if schema.get("anyOf"):
        return _draw(schema["anyOf"][int(random.integers(len(schema["anyOf"])))], random)
    types = schema.get("type", "object" if "properties" in schema else "string")
    kind = types if isinstance(types, str) else types[int(random.integers(len(types)))]
    if kind == "object":
        needed = set(schema.get("required", ()))
        properties = schema.get("properties", {})
        return {
            name: _draw(one, random)
            for name, one in properties.items()
            if name in needed or random.random() < 0.5
        }
    if kind == "array":
        low = int(schema.get("minItems", 0))
        high = int(schema.get("maxItems", low + 3))
        return [_draw(schema.get("items") or {}, random) for _ in range(int(random.integers(low, high + 1)))]
    if kind in ("integer", "number"):
        return _number(schema, random, kind == "integer")
    if kind == "boolean":
        return bool(random.random() < 0.5)
    return None if kind == "null" else _text(schema, random)


def _number(schema: Mapping[str, Any], random: np.random.Generator, whole: bool) -> float:
    step = schema.get("multipleOf")
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    low = (high - 100 if high is not None else 0) if low is None else low
    high = low + 100 if high is None else high
    if step:
        first, last = int(np.ceil(low / step)), int(np.floor(high / step))
        return int(random.integers(first, last + 1)) * step if last >= first else float(low)
    if whole:
        first, last = int(np.ceil(low)), int(np.floor(high))
        return int(random.integers(first, last + 1)) if last >= first else first
    return float(random.uniform(low, high))


def _text(schema: Mapping[str, Any], random: np.random.Generator) -> str:
    if "pattern" in schema:
        return "".join(_generate(part, random) for part in sre_parser.parse(schema["pattern"]))
    low = int(schema.get("minLength", 0))
    high = int(schema.get("maxLength", low + 12))
    return "".join(
        LETTERS[int(i)] for i in random.integers(len(LETTERS), size=int(random.integers(low, high + 1)))
    )


def _generate(part: tuple[Any, Any], random: np.random.Generator) -> str:
    """Text for one parsed part of a regular expression."""
    kind, value = part
    if kind is sre.LITERAL:
        return chr(value)
    if kind is sre.ANY:
        return LETTERS[int(random.integers(len(LETTERS)))]
    if kind is sre.NOT_LITERAL:
        return "x" if chr(value) != "x" else "y"
    if kind is sre.IN:
        return _one_of(value, random)
    if kind is sre.BRANCH:
        options = value[1]
        return "".join(_generate(one, random) for one in options[int(random.integers(len(options)))])
    if kind is sre.SUBPATTERN:
        return "".join(_generate(one, random) for one in value[3])
    if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        low, high, inner = value
        count = int(random.integers(low, min(high, low + MOST_REPEATS) + 1))
        return "".join(_generate(one, random) for _ in range(count) for one in inner)
    if kind is sre.AT:
        return ""
    raise ScenarioError(
        f"Text cannot be drawn from a pattern with {str(kind).lower()}.",
        next_step="Give the schema an 'enum'.",
    )


def _one_of(options: list[tuple[Any, Any]], random: np.random.Generator) -> str:
    negated = options[0][0] is sre.NEGATE
    letters = ""
    for kind, value in options:
        if kind is sre.LITERAL:
            letters += chr(value)
        elif kind is sre.RANGE:
            letters += "".join(map(chr, range(value[0], value[1] + 1)))
        elif kind is sre.CATEGORY:
            letters += _CATEGORIES[value]
    if negated:
        letters = "".join(one for one in LETTERS if one not in letters) or "\u00e9"
    return letters[int(random.integers(len(letters)))]
