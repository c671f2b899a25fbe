"""Whether a call is one of the possible answers: the AST match of the leaderboard, by the rules that its data state.

A possible answer is `{function: {argument: [allowed, …]}}`. The rules, in the order in which a call is judged:

- **Name.** Functions are offered with `_` for each `.` in their name, because OpenAI's API allows no dot; a call may
  write either.
- **Arguments.** Each is one of the function's schema and of the possible answer; each that the schema requires is
  there; one may be left out otherwise only where `""` is among the allowed values.
- **Values.** A value matches if it matches any of the allowed ones:
  - texts without regard to case, spaces and the characters `, . / - _ * ^`, and with `'` as `"`;
  - numbers by value; an integer stands for a float, a float never for an integer (5.0 is not 5 where the allowed value
    is an integer and the schema does not say `float`); a boolean is not a number;
  - lists element by element, in order, of the same length (a JSON list also stands for a tuple);
  - objects key by key, each key with its own list of allowed values; a key may be left out where `""` is among them.
- **Types** follow from the allowed value, which is of the schema's type, or the name of a variable where the question
  gives one.
- **Several calls** match in any order, each possible answer exactly one call.
- **Java and JavaScript** arguments are literals of the language written as text (`42L`, `new int[]{1, 2}`); see
  `literals.py`. A plain JSON value is accepted as well.

What differs from the leaderboard's program: an integer stands for a float inside lists and objects too, and several
calls are matched by the best assignment instead of the first that fits, so no order of calls can lose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from melete.evals.bfcl import literals
from melete.records import ToolCall

DROPPED = re.compile(r"[ ,./\-_*^]")
FLOATS = ("float", "double", "number")

Answer = Mapping[str, Mapping[str, list[Any]]]
"""One possible answer: a function's name to its arguments, each with its allowed values."""


def offered_name(name: str) -> str:
    """A function's name as it is offered to the model."""
    return name.replace(".", "_")


def calls_match(
    calls: Sequence[ToolCall],
    answers: Sequence[Answer],
    functions: Sequence[Mapping[str, Any]],
    foreign: bool = False,
) -> bool:
    """Whether the calls are the possible answers, in any order.

    Args:
        calls: what the model proposed.
        answers: the possible answers, one for each call due.
        functions: the question's functions, in the leaderboard's own schema.
        foreign: whether values are Java or JavaScript literals.
    """
    if len(calls) != len(answers):
        return False
    by_name = {offered_name(function["name"]): function for function in functions}
    fits = [[call_matches(call, answer, by_name, foreign) for answer in answers] for call in calls]
    return _assignable(fits)


def call_matches(
    call: ToolCall, answer: Answer, functions: Mapping[str, Mapping[str, Any]], foreign: bool = False
) -> bool:
    """Whether one call is one possible answer; `functions` are by offered name."""
    ((name, allowed),) = answer.items()
    function = functions.get(offered_name(name))
    arguments = _object(call.arguments)
    if function is None or arguments is None or offered_name(call.name) != offered_name(name):
        return False
    properties = function["parameters"].get("properties", {})
    if not set(function["parameters"].get("required", ())) <= set(arguments):
        return False
    if not set(arguments) <= set(properties) & set(allowed):
        return False
    left_out = set(allowed) - set(arguments)
    return all("" in allowed[key] for key in left_out) and all(
        any(value_matches(value, one, properties[key], foreign) for one in allowed[key])
        for key, value in arguments.items()
    )


def value_matches(value: Any, allowed: Any, schema: Mapping[str, Any], foreign: bool = False) -> bool:
    """Whether a value is the allowed one.

    Args:
        value: what the model wrote.
        allowed: one of the allowed values.
        schema: the argument's schema; empty where the function does not give one.
        foreign: whether a text may be a literal of Java or JavaScript.
    """
    if foreign and isinstance(value, str):
        value = literals.text(value) if isinstance(allowed, str) else literals.read(value)
    if isinstance(allowed, str):
        return isinstance(value, str) and plain(value) == plain(allowed)
    if isinstance(allowed, bool) or allowed is None:
        return value is allowed
    if isinstance(allowed, (int, float)):
        return _number_matches(value, allowed, schema)
    if isinstance(allowed, list):
        items = _part(schema, "items")
        return (
            isinstance(value, list)
            and len(value) == len(allowed)
            and all(value_matches(v, a, items, foreign) for v, a in zip(value, allowed, strict=True))
        )
    assert isinstance(allowed, dict), f"a possible answer holds {allowed!r}"
    return isinstance(value, dict) and _object_matches(value, allowed, _part(schema, "properties"), foreign)


def plain(text: str) -> str:
    """A text without what the comparison leaves out of account."""
    return DROPPED.sub("", text).lower().replace("'", '"')


def _number_matches(value: Any, allowed: float, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    whole_wanted = isinstance(allowed, int) and schema.get("type") not in FLOATS
    return value == allowed and not (isinstance(value, float) and whole_wanted)


def _object_matches(
    value: Mapping[str, Any], allowed: Mapping[str, Any], properties: Mapping[str, Any], foreign: bool
) -> bool:
    # A few answers give a key's value bare instead of in a list.
    lists = {key: some if isinstance(some, list) else [some] for key, some in allowed.items()}
    if not set(value) <= set(lists) or not all("" in lists[key] for key in set(lists) - set(value)):
        return False
    return all(
        any(value_matches(part, one, _part(properties, key), foreign) for one in lists[key])
        for key, part in value.items()
    )


def _part(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = schema.get(key)
    return part if isinstance(part, dict) else {}


def _assignable(fits: Sequence[Sequence[bool]]) -> bool:
    """Whether each row can have a column of its own that fits, by augmenting paths (Kuhn, 1955)."""
    row_of: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in tried:
                tried.add(column)
                if column not in row_of or place(row_of[column], tried):
                    row_of[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(fits)))


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
