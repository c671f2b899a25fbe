"""What a policy proposes to do: a tool call, a message to the person, or a discrete, continuous or UI action.

Actions are plain frozen records; `to_dict` and `from_dict` are the form in a trace. A tool call keeps its arguments as
an object: text that is no JSON object never becomes a `ToolAction` (`from_call` raises), so that the guard and the
tools only ever see parsed arguments.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from melete.records import ToolCall

MAX_DEPTH = 64
"""Deepest nesting of arguments; everything that walks through them can then do so by recursion."""
MAX_DIGITS = 100
"""Longest whole number, which stays within what a float holds."""
UIKind = Literal["click", "double_click", "right_click", "move", "drag", "scroll", "type", "key", "wait"]
_SORTED = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=str)
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
UI_KINDS: tuple[UIKind, ...] = get_args(UIKind)


@dataclass(frozen=True)
class ToolAction:
    """A call of a tool. `id` is the id of the call on the wire, if it has one."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    id: str = ""

    @classmethod
    def from_call(cls, call: ToolCall) -> ToolAction:
        """The action that a model's call asks for.

        Raises:
            ValueError: the arguments are not the text of one JSON object, or one that other programs could not read:
                nested deeper than `MAX_DEPTH`, a number out of range, half a Unicode character.
        """
        try:
            arguments = _DECODER.decode(call.arguments or "{}")
            if "\\u" in call.arguments:
                compact_json(arguments).encode()
        except (ValueError, RecursionError) as error:
            raise ValueError(f"arguments of {call.name} are not JSON: {error}") from error
        if not isinstance(arguments, dict):
            raise ValueError(f"arguments of {call.name} are {type(arguments).__name__}, not a JSON object")
        if (
            call.arguments.count("[") + call.arguments.count("{") > MAX_DEPTH
            and _depth(arguments) > MAX_DEPTH
        ):
            raise ValueError(f"arguments of {call.name} are nested deeper than {MAX_DEPTH}")
        return cls(call.name, arguments, call.id)

    def to_call(self, default_id: str = "call_0") -> ToolCall:
        """The call in the form of a conversation."""
        return ToolCall(self.id or default_id, self.name, compact_json(self.arguments))

    @property
    def key(self) -> str:
        """Name and arguments as text, the same for equal arguments in any order; the id is left out."""
        return self.name + _SORTED.encode(self.arguments)


@dataclass(frozen=True)
class Message:
    """What the agent says to the person."""

    text: str


@dataclass(frozen=True)
class DiscreteAction:
    """One of a fixed number of choices, counted from 0."""

    index: int


@dataclass(frozen=True)
class ContinuousAction:
    """A vector in the units of its space, such as joint velocities."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class UIAction:
    """One gesture on a screen. Coordinates are pixels from the top left; `amount` counts scroll notches down.

    Which fields a kind uses: click, double_click, right_click and move take `x`, `y`; drag also `to_x`, `to_y`;
    scroll `x`, `y`, `amount`; type `text`; key `key` (such as `ctrl+a`); wait none.
    """

    kind: UIKind
    x: int | None = None
    y: int | None = None
    to_x: int | None = None
    to_y: int | None = None
    amount: int = 0
    text: str = ""
    key: str = ""


Action = ToolAction | Message | DiscreteAction | ContinuousAction | UIAction

_TYPES: dict[str, type[Any]] = {
    "tool": ToolAction,
    "message": Message,
    "discrete": DiscreteAction,
    "continuous": ContinuousAction,
    "ui": UIAction,
}
_NAMES = {cls: name for name, cls in _TYPES.items()}


def to_dict(action: Action) -> dict[str, Any]:
    """The action as a JSON object with its `type`; fields at their default are left out."""
    values: dict[str, Any] = {"type": _NAMES[type(action)]}
    for one in dataclasses.fields(action):
        value = getattr(action, one.name)
        if one.default is dataclasses.MISSING or value != one.default:
            values[one.name] = list(value) if isinstance(value, tuple) else value
    return values


def from_dict(values: dict[str, Any]) -> Action:
    """Reads what `to_dict` wrote.

    Raises:
        ValueError: a type that no action has, or fields that the type does not have.
    """
    kind = values.get("type")
    if kind not in _TYPES:
        raise ValueError(f"an action has a type among {', '.join(_TYPES)}; found {kind!r}")
    fields = {name: value for name, value in values.items() if name != "type"}
    if isinstance(fields.get("values"), list):
        fields["values"] = tuple(fields["values"])
    try:
        action: Action = _TYPES[kind](**fields)
    except TypeError as error:
        raise ValueError(f"a {kind} action cannot be read: {error}") from error
    return action


def compact_json(value: Any) -> str:
    """JSON in one line without spaces, as models read and write it here."""
    return _COMPACT.encode(value)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits; allowed: {MAX_DIGITS}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:20]} is out of range")
    return value


def _depth(value: Any) -> int:
    """How deep a value is nested, found without recursion."""
    depth, level = 0, [value]
    while level:
        depth += 1
        inside = [
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))
        ]
        level = [item for items in inside for item in items]
    return depth


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_whole, parse_float=_finite)
