"""Schemas: compiled checks say what jsonschema says, in words; functions become schemas; samples are allowed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from typing_extensions import TypedDict

from melete.actions.drawing import draw
from melete.actions.schema import check_schema, compile_schema
from melete.actions.signature import schema_of
from melete.errors import ScenarioError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-5, 5)
    | st.sampled_from(["", "a", "ab", "O-12"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
LEAVES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"])
        | st.lists(st.sampled_from(["string", "integer", "null"]), min_size=1, max_size=3, unique=True),
        "enum": st.lists(SCALARS, min_size=1, max_size=3),
        "minimum": st.integers(-3, 3),
        "exclusiveMaximum": st.integers(-3, 3),
        "multipleOf": st.integers(1, 3),
        "minLength": st.integers(0, 2),
        "maxLength": st.integers(0, 3),
        "pattern": st.sampled_from(["^a", "b$", "O-[0-9]+"]),
        "minItems": st.integers(0, 2),
        "description": st.just("words"),
    },
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array"]),
            "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
            "additionalProperties": st.booleans() | inner,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
        },
    ),
    max_leaves=5,
)


@given(SCHEMAS, VALUES)
def test_compiled_check_agrees_with_jsonschema(schema: dict[str, Any], value: Any) -> None:
    assert (compile_schema(schema)(value) == []) == jsonschema.Draft202012Validator(schema).is_valid(value)


def test_keyword_that_is_not_compiled_is_checked_by_the_library() -> None:
    problems = compile_schema({"type": "object", "properties": {"a": {"not": {"const": 1}}}})
    assert problems({"a": 2}) == []
    assert problems({"a": 1})[0].startswith("a: ")


def test_problems_say_what_was_found_what_is_allowed_and_the_closest_name() -> None:
    schema = {
        "type": "object",
        "properties": {"order_id": {"type": "string"}, "n": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["order_id"],
    }
    assert compile_schema(schema, closed=True)({"orderid": "O-1", "n": 9}) == [
        "order_id is missing; needed: a string.",
        "orderid is no argument of this tool; allowed: order_id, n. Did you mean order_id?",
        "n: found 9, an integer; allowed: an integer from 1 to 5.",
    ]


def test_problem_in_a_list_of_objects_has_its_path() -> None:
    schema = {"type": "object", "properties": {"items": {"type": "array", "items": {"enum": ["a"]}}}}
    assert compile_schema(schema)({"items": ["a", "b"]}) == [
        'items[1]: found "b", a string; allowed: one of "a".'
    ]


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "object", "properties": {"a": {"type": "strng"}}}, "properties.a.type"),
        ({"type": "object", "required": "a"}, "required"),
        ({"type": "string"}, "string"),
        ([], "list"),
    ],
)
def test_schema_that_is_none_is_refused_with_the_place(schema: Any, place: str) -> None:
    with pytest.raises(ScenarioError, match=place):
        check_schema(schema, "The tool x")


class Item(TypedDict):
    sku: str
    count: Annotated[int, Field(ge=1)]


def order(
    items: list[Item],
    speed: Literal["slow", "fast"] = "slow",
    note: str | None = None,
    idempotency_key: str = "",
) -> NotImportedHere:  # noqa: F821  a result's type may be unknown at run time
    """Orders
    things.

    Args:
        items: What to
            order.
        speed: How fast.

    Returns:
        Nothing yet: not for the model.
    """


def test_function_becomes_a_schema_with_descriptions_defaults_and_no_references() -> None:
    description, schema = schema_of(order)
    item = {
        "type": "object",
        "properties": {"sku": {"type": "string"}, "count": {"type": "integer", "minimum": 1}},
        "required": ["sku", "count"],
    }
    assert description == "Orders things."
    assert schema == {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": item, "description": "What to order."},
            "speed": {
                "type": "string",
                "enum": ["slow", "fast"],
                "description": "How fast.",
                "default": "slow",
            },
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["items"],
    }


def _no_docstring(a: int) -> int:
    return a


def _no_type(a) -> int:  # type: ignore[no-untyped-def]
    """Something."""
    return a


def _bytes(a: bytes) -> int:
    """Something."""
    return len(a)


def _many(*a: int) -> int:
    """Something."""
    return len(a)


def _other_name(a: int) -> int:
    """Something.

    Args:
        b: Not there.
    """
    return a


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_no_docstring, "no docstring"),
        (_no_type, "has no type"),
        (_bytes, "bytes, which JSON does not have"),
        (_many, "parameters with a name"),
        (_other_name, "describes b"),
    ],
)
def test_function_that_is_no_tool_is_refused_with_the_reason(function: Any, words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        schema_of(function)


DRAWN = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": r"^O-[0-9]{3,5}(a|b)?$"},
        "n": {"type": "integer", "minimum": 2, "maximum": 4},
        "x": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 2},
        "who": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 3}]},
    },
    "required": ["id", "n"],
}


@settings(max_examples=40)
@given(st.integers(0, 2**31))
def test_drawn_value_is_allowed_by_the_schema(seed: int) -> None:
    jsonschema.validate(draw(DRAWN, np.random.default_rng(seed)), DRAWN)


def test_drawing_from_what_cannot_be_drawn_is_an_error_and_no_wrong_value() -> None:
    with pytest.raises(ScenarioError, match="drawn"):
        draw({"type": "string", "pattern": "(?=a)b"}, np.random.default_rng(0))
