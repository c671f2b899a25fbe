"""Java and JavaScript literals as values: what a model means by `42L`, `new int[]{1, 2}` or `{limit: 50}`.

Numbers (with Java's suffixes), booleans, `null`, quoted texts, arrays (`[…]`, `{…}`, `new T[]{…}`,
`Arrays.asList(…)`, `List.of(…)`, `new ArrayList<>(…)`), maps (`{key: value}`, `Map.of(…)`, double braces with `put`).
Anything else, such as the name of a variable or a call, is its own text. This reads, and never runs, what a model
wrote.
"""

from __future__ import annotations

import re
from typing import Any

WORDS = {"true": True, "false": False, "null": None, "undefined": None}
INTEGER = re.compile(r"[+-]?\d{1,18}[lL]?")
FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?[fFdD]?")
QUOTED = re.compile(r"""(["'`])((?:\\.|(?!\1).)*)\1""", re.DOTALL)
LIST = re.compile(r"(?:new\s+[\w.]+(?:<[^<>]*>)?(?:\s*\[\s*\])+\s*\{|\{|\[)(.*)[}\]]", re.DOTALL)
LIST_CALL = re.compile(r"(?:(?:Arrays\.asList|List\.of|Array\.of|Set\.of)\s*)\((.*)\)", re.DOTALL)
WRAPPED = re.compile(r"new\s+\w*(?:List|Set|Map)\s*(?:<[^()]*>\s*)?\((.*)\)", re.DOTALL)
MAP_CALL = re.compile(r"Map\.of\s*\((.*)\)", re.DOTALL)
PUTS = re.compile(r"new\s+\w*Map\s*(?:<[^()]*>\s*)?\(\s*\)\s*\{\s*\{(.*)\}\s*(?:;\s*)?\}", re.DOTALL)
PUT = re.compile(r"(?:\w+\.)?put\s*\((.*)\)", re.DOTALL)
DEEPEST = 16
OPENING, CLOSING = "([{<", ")]}>"


def read(literal: str, depth: int = 0) -> Any:
    """The value of a literal; the text itself where it is none, or where it is nested deeper than `DEEPEST`."""
    stripped = literal.strip()
    if depth > DEEPEST:
        return stripped
    if stripped in WORDS:
        return WORDS[stripped]
    if INTEGER.fullmatch(stripped):
        return int(stripped.rstrip("lL"))
    if FLOAT.fullmatch(stripped):
        return float(stripped.rstrip("fFdD"))
    if QUOTED.fullmatch(stripped):
        return text(stripped)
    if puts := PUTS.fullmatch(stripped):
        calls = [PUT.fullmatch(part.strip()) for part in split(puts[1], ";") if part.strip()]
        return _pairs([part for call in calls if call for part in split(call[1], ",")], depth)
    if pairs := MAP_CALL.fullmatch(stripped):
        return _pairs(split(pairs[1], ","), depth)
    if inner := LIST_CALL.fullmatch(stripped):
        return [read(part, depth + 1) for part in split(inner[1], ",")]
    if wrapped := WRAPPED.fullmatch(stripped):
        return (
            read(wrapped[1], depth + 1)
            if wrapped[1].strip()
            else ({} if "Map" in stripped.split("(")[0] else [])
        )
    if stripped.startswith("{") and (mapping := _mapping(stripped, depth)) is not None:
        return mapping
    if inner := LIST.fullmatch(stripped):
        return [read(part, depth + 1) for part in split(inner[1], ",")]
    return stripped


def text(literal: str) -> str:
    """A text without the quotes around it."""
    quoted = QUOTED.fullmatch(literal.strip())
    return re.sub(r"\\(.)", r"\1", quoted[2]) if quoted else literal


def split(inner: str, separator: str) -> list[str]:
    """Parts between separators that stand outside quotes and brackets; an empty end is no part."""
    parts, depth, start, position = [], 0, 0, 0
    while position < len(inner):
        quoted = QUOTED.match(inner, position)
        if quoted:
            position = quoted.end()
            continue
        character = inner[position]
        depth += (character in OPENING) - (character in CLOSING)
        if character == separator and depth <= 0:
            parts.append(inner[start:position])
            start = position + 1
        position += 1
    last = inner[start:]
    return [*parts, last] if last.strip() else parts


def _mapping(stripped: str, depth: int) -> dict[str, Any] | None:
    """`{key: value, …}`; None if it is not of that form."""
    if not stripped.endswith("}"):
        return None
    entries = [split(part, ":") for part in split(stripped[1:-1], ",")]
    if any(len(entry) < 2 for entry in entries):
        return None
    return {text(key.strip()): read(":".join(rest), depth + 1) for key, *rest in entries}


def _pairs(parts: list[str], depth: int) -> dict[str, Any]:
    keys, values = parts[::2], parts[1::2]
    return {text(key.strip()): read(value, depth + 1) for key, value in zip(keys, values, strict=False)}
