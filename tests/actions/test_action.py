"""Actions as records: read from a model's call, written to a trace and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete.actions.action import (
    UI_KINDS,
    Action,
    ContinuousAction,
    DiscreteAction,
    Message,
    ToolAction,
    UIAction,
    from_dict,
    to_dict,
)
from melete.records import ToolCall

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)
NUMBERS = st.floats(allow_nan=False)
ACTIONS = st.one_of(
    st.builds(ToolAction, st.text(), OBJECTS, st.text()),
    st.builds(Message, st.text()),
    st.builds(DiscreteAction, st.integers()),
    st.builds(ContinuousAction, st.lists(NUMBERS).map(tuple)),
    st.builds(
        UIAction,
        st.sampled_from(UI_KINDS),
        st.none() | st.integers(),
        text=st.text(),
        key=st.text(),
        amount=st.integers(),
    ),
)


@given(ACTIONS)
def test_action_written_as_json_and_read_is_the_same(action: Action) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(action)))) == action


@given(OBJECTS)
def test_call_of_a_model_and_back_keeps_the_arguments(arguments: dict[str, object]) -> None:
    action = ToolAction("look", arguments, "c1")
    assert ToolAction.from_call(action.to_call()) == action


BAD = [
    "[1]", "{", "nothing", '{"a": NaN}', '"x"', "[" * 100_000, '{"a": 1e999}', '{"a": ' + "9" * 400 + "}",
    '{"a": "\\ud800"}', '{"a": ' + "[" * 90 + "]" * 90 + "}",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:12])
def test_call_without_a_json_object_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="arguments of look are"):
        ToolAction.from_call(ToolCall("1", "look", text))


def test_key_is_equal_for_equal_arguments_in_any_order_and_any_id() -> None:
    assert ToolAction("f", {"a": 1, "b": [2]}, "x").key == ToolAction("f", {"b": [2], "a": 1}, "y").key
    assert ToolAction("f", {"a": 1}).key != ToolAction("f", {"a": "1"}).key


@pytest.mark.parametrize(
    "values", [{"type": "shell"}, {}, {"type": "message"}, {"type": "message", "text": "a", "b": 1}]
)
def test_unknown_action_is_a_value_error(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="action"):
        from_dict(values)


def test_half_a_character_written_as_a_pair_is_whole() -> None:
    assert ToolAction.from_call(ToolCall("1", "say", '{"a": "\\ud83d\\ude00"}')).arguments == {
        "a": "\U0001f600"
    }
