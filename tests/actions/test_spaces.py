"""Spaces of actions: what is encoded decodes to itself, samples are members, and nonsense is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete.actions.action import ContinuousAction, DiscreteAction, Message, ToolAction, UIAction
from melete.actions.spaces import ContinuousSpace, DiscreteSpace, TextSpace, ToolCallSpace, UISpace
from melete.errors import ScenarioError

TOOLS = ToolCallSpace(
    [
        {"type": "function", "function": {"name": "stop"}},
        {
            "type": "function",
            "function": {
                "name": "pay",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "order_id": {"type": "string", "pattern": "^O-[0-9]{1,4}$"},
                        "amount": {"type": "number", "minimum": 0, "maximum": 500},
                        "reason": {"enum": ["late", "broken"]},
                        "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
                    },
                    "required": ["order_id", "amount"],
                },
            },
        },
    ],
    message_share=0.3,
)
ARM = ContinuousSpace([-1.5, 0.0, 10.0], [1.5, 0.25, 30.0])
CHOICE = DiscreteSpace(["left", "right", "wait a moment"])
SCREEN = UISpace(320, 200, texts=("hello", "two words"))
TYPING = UISpace(320, 200, kinds=("type", "click"))
SPACES = [TOOLS, ARM, CHOICE, SCREEN, TYPING, TextSpace()]
SEEDS = st.integers(0, 2**31)


@pytest.mark.parametrize("space", SPACES, ids=repr)
@given(seed=SEEDS)
def test_sample_is_a_member_and_survives_encoding(space: Any, seed: int) -> None:
    space.seed(seed)
    action = space.sample()
    assert space.contains(action)
    assert space.decode(space.encode(action)) == action
    assert space.from_jsonable(space.to_jsonable([action])) == [action]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_samples_of_the_same_seed_are_the_same(space: Any) -> None:
    drawn = []
    for _ in range(2):
        space.seed(7)
        drawn.append([space.sample() for _ in range(20)])
    assert drawn[0] == drawn[1]
    assert len(set(map(str, drawn[0]))) > 1


@given(st.text())
def test_any_message_survives_encoding_and_is_never_read_as_a_call(text: str) -> None:
    for said in (text, f'{{"name":{text}', f"\\{text}", '{"name":"stop","arguments":{}}'):
        assert TOOLS.decode(TOOLS.encode(Message(said))) == Message(said)


def test_call_is_encoded_as_the_model_writes_it() -> None:
    action = ToolAction("pay", {"order_id": "O-1", "amount": 2.5})
    assert TOOLS.encode(action) == '{"name":"pay","arguments":{"order_id":"O-1","amount":2.5}}'
    assert TOOLS.decode('{"name": "stop", "arguments": {}}'.replace(": ", ":")) == ToolAction("stop")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name":"pay"', "not JSON"),
        ('{"name":"fly","arguments":{}}', "no tool fly"),
        ('{"name":"pay","arguments":{"order_id":"O-1","amount":900}}', "from 0 to 500"),
        ('{"name":"stop","arguments":{"now":1}}', "no argument"),
        ('{"name":"stop","arguments":[]}', "arguments"),
        ('{"name":"stop","arguments":{},"more":1}', "a call is"),
        ('{"name":"stop","arguments":{"x":NaN}}', "JSON"),
    ],
)
def test_text_that_begins_as_a_call_and_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TOOLS.decode(text)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_continuous_action_survives_text_exactly_and_a_vector_to_rounding(shares: list[float]) -> None:
    action = ARM.clamp(ContinuousAction(tuple(ARM.low + np.array(shares) * (ARM.high - ARM.low))))
    assert ARM.decode(ARM.encode(action)) == action
    vector = ARM.to_vector(action)
    assert np.abs(vector).max() <= 1 + 1e-9
    assert np.allclose(ARM.from_vector(vector).values, action.values, atol=1e-9)


@given(st.lists(st.floats(allow_nan=False), min_size=3, max_size=3))
def test_clamped_action_is_the_nearest_member(values: list[float]) -> None:
    clamped = ARM.clamp(ContinuousAction(tuple(values)))
    assert ARM.contains(clamped)
    assert clamped.values == tuple(np.clip(values, ARM.low, ARM.high))


def test_bounds_are_minus_one_and_one_in_a_vector() -> None:
    assert ARM.to_vector(ContinuousAction((-1.5, 0.25, 20.0))).tolist() == [-1, 1, 0]


@pytest.mark.parametrize("values", [(0.0,), (0.0, 0.1, float("nan")), (0.0, 0.1, 31.0)])
def test_continuous_action_of_wrong_length_or_place_is_no_member(values: tuple[float, ...]) -> None:
    assert not ARM.contains(ContinuousAction(values))


def test_nan_cannot_be_clamped() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ARM.clamp(ContinuousAction((0.0, 0.1, float("nan"))))


@given(st.integers(0, 2))
def test_discrete_action_survives_a_vector(index: int) -> None:
    assert CHOICE.from_vector(CHOICE.to_vector(DiscreteAction(index))) == DiscreteAction(index)


def test_unknown_choice_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="left, right"):
        CHOICE.decode("up")
    assert not CHOICE.contains(DiscreteAction(3))
    assert not CHOICE.contains(DiscreteAction(True))


@given(SEEDS)
def test_gesture_survives_a_vector(seed: int) -> None:
    SCREEN.seed(seed)
    action = SCREEN.sample()
    assert SCREEN.from_vector(SCREEN.to_vector(action)) == action


@given(st.lists(st.floats(), min_size=19, max_size=19))
def test_any_vector_is_some_gesture_on_the_screen(values: list[float]) -> None:
    assert SCREEN.contains(SCREEN.from_vector(values))


@given(st.text())
def test_typed_text_survives_encoding_and_does_not_fit_a_vector(text: str) -> None:
    action = UIAction("type", text=text)
    assert TYPING.decode(TYPING.encode(action)) == action
    with pytest.raises(ValueError, match="texts"):
        TYPING.to_vector(action)


def test_gesture_is_encoded_compactly() -> None:
    assert SCREEN.encode(UIAction("drag", 1, 2, 30, 40)) == "drag 1 2 30 40"
    assert SCREEN.encode(UIAction("wait")) == "wait"
    assert SCREEN.encode(UIAction("key", key="enter")) == "key enter"


@pytest.mark.parametrize(
    "text", ["click 320 0", "click 1", "fly 1 2", "key f13", "scroll 1 1 99", 'type "other"', "click a b"]
)
def test_text_that_is_no_gesture_of_this_screen_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        SCREEN.decode(text)


def test_gesture_with_a_field_that_its_kind_does_not_use_is_no_member() -> None:
    assert not SCREEN.contains(UIAction("wait", 1, 2))


@given(st.text())
def test_text_survives_its_bytes(text: str) -> None:
    space = TextSpace()
    assert space.from_vector(space.to_vector(text)) == text


def test_text_too_long_or_broken_is_no_member() -> None:
    assert not TextSpace(3).contains("four")
    assert not TextSpace().contains("\ud800")


@pytest.mark.parametrize(
    "make",
    [
        lambda: ToolCallSpace([]),
        lambda: DiscreteSpace(["a", "a"]),
        lambda: DiscreteSpace(0),
        lambda: ContinuousSpace([0.0], [0.0]),
        lambda: ContinuousSpace([0.0, 1.0], [1.0]),
        lambda: ContinuousSpace([0.0], [float("inf")]),
        lambda: UISpace(1, 100),
    ],
)
def test_space_that_is_none_is_refused(make: Any) -> None:
    with pytest.raises(ScenarioError):
        make()
