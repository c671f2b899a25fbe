"""Gymnasium spaces of actions, with codecs: an action as a policy writes it (text) or computes it (a vector), and back.

| space | `encode` to text | `to_vector` |
|---|---|---|
| `ToolCallSpace` | `{"name":…,"arguments":{…}}`, or the message | |
| `DiscreteSpace` | the choice's name or number | one-hot |
| `ContinuousSpace` | numbers with spaces between | scaled to [-1, 1] |
| `UISpace` | `click 10 20`, `type "text"`, `key ctrl+a` | kind one-hot, coordinates scaled |
| `TextSpace` | the text | UTF-8 bytes |

`decode(encode(action))` is the action, exactly; a vector of floats gives it back to rounding. The id of a tool call is
not part of the text. Text that is no action of the space is a `ValueError` that says what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

import gymnasium
import numpy as np
import numpy.typing as npt

from melete.actions.action import (
    UI_KINDS,
    ContinuousAction,
    DiscreteAction,
    Message,
    ToolAction,
    UIAction,
    UIKind,
    compact_json,
)
from melete.actions.drawing import draw
from melete.actions.schema import compile_schema
from melete.errors import ScenarioError
from melete.records import ToolCall

Vector = npt.NDArray[np.float64]
A = TypeVar("A")
T = TypeVar("T")
CALL = '{"name":'
MOST_NOTCHES = 10


class _Space(gymnasium.Space[A], Generic[A]):
    """What the spaces share: JSON is the text of `encode`."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Whether Gymnasium's own `flatten` applies; these spaces have `to_vector`."""
        return False

    def encode(self, action: A) -> str:
        """The action as text."""
        raise NotImplementedError

    def decode(self, text: str) -> A:
        """The action of a text.

        Raises:
            ValueError: the text is no action of this space.
        """
        raise NotImplementedError

    def to_jsonable(self, sample_n: Iterable[A]) -> list[Any]:
        """Actions as a list of texts."""
        return [self.encode(action) for action in sample_n]

    def from_jsonable(self, sample_n: list[Any]) -> list[A]:
        """Actions from a list of texts."""
        return [self.decode(text) for text in sample_n]

    def _checked(self, action: A, text: str) -> A:
        if not self.contains(action):
            raise ValueError(f"{text[:200]!r} is no action of {self}")
        return action


class ToolCallSpace(_Space[ToolAction | Message]):
    """Calls of the given tools with arguments that their schemas allow, and messages.

    Args:
        schemas: tools in OpenAI's form, at least one.
        message_share: how many of the samples are messages.
        seed: seed of the samples.
    """

    def __init__(
        self, schemas: Sequence[dict[str, Any]], message_share: float = 0.1, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        if not schemas:
            raise ScenarioError("A space of tool calls needs at least one tool.")
        self._parameters = {
            one["function"]["name"]: one["function"].get("parameters") or {"type": "object"}
            for one in schemas
        }
        self._problems = {name: compile_schema(one, closed=True) for name, one in self._parameters.items()}
        self._message_share = message_share

    def __repr__(self) -> str:
        return f"ToolCallSpace({', '.join(self._parameters)})"

    def contains(self, x: Any) -> bool:
        """Whether `x` is a message, or a call that may be made."""
        if isinstance(x, Message):
            return True
        return (
            isinstance(x, ToolAction) and x.name in self._problems and not self._problems[x.name](x.arguments)
        )

    def sample(self, mask: Any = None, probability: Any = None) -> ToolAction | Message:
        """A call with arguments drawn from the tool's schema, or now and then a message."""
        random = self.np_random
        if random.random() < self._message_share:
            return Message("".join(chr(97 + int(i)) for i in random.integers(26, size=8)))
        name = list(self._parameters)[int(random.integers(len(self._parameters)))]
        return ToolAction(name, draw(self._parameters[name], random))

    def encode(self, action: ToolAction | Message) -> str:
        """A call as the model writes it; a message as its text, with a backslash first where it looks like a call."""
        if isinstance(action, Message):
            return f"\\{action.text}" if action.text.startswith((CALL, "\\")) else action.text
        return compact_json({"name": action.name, "arguments": action.arguments})

    def decode(self, text: str) -> ToolAction | Message:
        """Reads what `encode` wrote.

        Raises:
            ValueError: it begins as a call and is none, or the call is not one of this space.
        """
        if not text.startswith(CALL):
            return Message(text.removeprefix("\\"))
        try:
            call = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the call is not JSON: {error}") from error
        if not isinstance(call["name"], str) or not isinstance(call.get("arguments"), dict) or len(call) != 2:
            raise ValueError('a call is {"name": text, "arguments": object}')
        action = ToolAction.from_call(ToolCall("", call["name"], compact_json(call["arguments"])))
        if action.name not in self._problems:
            raise ValueError(f"there is no tool {action.name[:64]}; known: {', '.join(self._problems)}")
        problems = self._problems[action.name](action.arguments)
        if problems:
            raise ValueError(" ".join(problems))
        return action


class DiscreteSpace(_Space[DiscreteAction]):
    """`n` choices, with names if they have some."""

    def __init__(self, n: int | Sequence[str], seed: int | None = None) -> None:
        super().__init__(seed)
        self.names = tuple(map(str, range(n))) if isinstance(n, int) else tuple(n)
        if not self.names or len(set(self.names)) != len(self.names):
            raise ScenarioError(
                f"A discrete space needs different choices, at least one; found {self.names}."
            )

    def __repr__(self) -> str:
        return f"DiscreteSpace({', '.join(self.names[:12])})"

    def contains(self, x: Any) -> bool:
        """Whether `x` is one of the choices."""
        return isinstance(x, DiscreteAction) and type(x.index) is int and 0 <= x.index < len(self.names)

    def sample(self, mask: Any = None, probability: Any = None) -> DiscreteAction:
        """Any choice."""
        return DiscreteAction(int(self.np_random.integers(len(self.names))))

    def encode(self, action: DiscreteAction) -> str:
        """The name of the choice."""
        return self.names[action.index]

    def decode(self, text: str) -> DiscreteAction:
        """The choice of a name."""
        if text not in self.names:
            raise ValueError(f"{text[:64]!r} is no choice; allowed: {', '.join(self.names[:24])}")
        return DiscreteAction(self.names.index(text))

    def to_vector(self, action: DiscreteAction) -> Vector:
        """One-hot, (n,)."""
        vector = np.zeros(len(self.names))
        vector[action.index] = 1.0
        return vector

    def from_vector(self, vector: npt.ArrayLike) -> DiscreteAction:
        """The choice with the largest value, of (n,)."""
        return DiscreteAction(int(np.argmax(_shaped(vector, len(self.names)))))


class ContinuousSpace(_Space[ContinuousAction]):
    """Vectors between two bounds.

    Args:
        low: least values, (D,), finite.
        high: largest values, (D,), above the least.
        seed: seed of the samples.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], seed: int | None = None) -> None:
        super().__init__(seed)
        self.low, self.high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        if self.low.shape != self.high.shape or self.low.ndim != 1 or not len(self.low):
            raise ScenarioError(
                f"Bounds of a continuous space have shapes {self.low.shape} and {self.high.shape}."
            )
        if not (np.isfinite([self.low, self.high]).all() and (self.low < self.high).all()):
            raise ScenarioError("A continuous space needs finite bounds with low < high in every dimension.")

    def __repr__(self) -> str:
        return f"ContinuousSpace({self.low.tolist()}, {self.high.tolist()})"

    def contains(self, x: Any) -> bool:
        """Whether `x` has the right length and lies within the bounds."""
        if not isinstance(x, ContinuousAction) or len(x.values) != len(self.low):
            return False
        values = np.asarray(x.values, dtype=np.float64)
        return bool(((values >= self.low) & (values <= self.high)).all())

    def sample(self, mask: Any = None, probability: Any = None) -> ContinuousAction:
        """A vector drawn evenly."""
        return _continuous(self.np_random.uniform(self.low, self.high))

    def clamp(self, action: ContinuousAction) -> ContinuousAction:
        """The nearest action within the bounds.

        Raises:
            ValueError: a wrong length, or a value that is not a number.
        """
        values = _shaped(action.values, len(self.low))
        if np.isnan(values).any():
            raise ValueError("an action with NaN has no nearest one")
        return _continuous(np.clip(values, self.low, self.high))

    def encode(self, action: ContinuousAction) -> str:
        """Numbers with spaces between, in full precision."""
        return " ".join(repr(float(value)) for value in action.values)

    def decode(self, text: str) -> ContinuousAction:
        """Reads what `encode` wrote."""
        return self._checked(ContinuousAction(tuple(float(part) for part in text.split())), text)

    def to_vector(self, action: ContinuousAction) -> Vector:
        """Scaled so that the bounds become -1 and 1, (D,)."""
        values = _shaped(action.values, len(self.low))
        return np.asarray((values - self.low) / (self.high - self.low) * 2 - 1)

    def from_vector(self, vector: npt.ArrayLike) -> ContinuousAction:
        """From [-1, 1] to the bounds; values beyond are clamped. (D,)."""
        scaled = np.clip(_shaped(vector, len(self.low)), -1.0, 1.0)
        return self.clamp(_continuous(self.low + (scaled + 1) / 2 * (self.high - self.low)))


class UISpace(_Space[UIAction]):
    """Gestures on a screen of `width` x `height` pixels.

    Args:
        width, height: pixels, at least 2 each.
        kinds: gestures allowed.
        keys: keys that `key` may press, such as `enter`.
        texts: texts that `type` may write; empty is any, which a vector cannot hold.
        seed: seed of the samples.
    """

    def __init__(
        self,
        width: int,
        height: int,
        kinds: Sequence[UIKind] = UI_KINDS,
        keys: Sequence[str] = ("enter", "tab", "escape"),
        texts: Sequence[str] = (),
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        if width < 2 or height < 2 or not kinds or not set(kinds) <= set(UI_KINDS):
            raise ScenarioError(f"A screen of {width} x {height} with {list(kinds)} is no space of gestures.")
        self.width, self.height, self.kinds = width, height, tuple(kinds)
        self.keys, self.texts = tuple(keys), tuple(texts)

    def __repr__(self) -> str:
        return f"UISpace({self.width} x {self.height}: {', '.join(self.kinds)})"

    def contains(self, x: Any) -> bool:
        """Whether `x` is a gesture allowed, on the screen, with just the fields that its kind uses."""
        if not isinstance(x, UIAction) or x.kind not in self.kinds or x != _only_used(x):
            return False
        if x.kind == "type" and self.texts and x.text not in self.texts:
            return False
        if x.kind == "key" and x.key not in self.keys:
            return False
        points = [(x.x, self.width), (x.y, self.height)] if x.kind in _POINTED else []
        points += [(x.to_x, self.width), (x.to_y, self.height)] if x.kind == "drag" else []
        on_screen = all(type(value) is int and 0 <= value < size for value, size in points)
        return on_screen and type(x.amount) is int and abs(x.amount) <= MOST_NOTCHES

    def sample(self, mask: Any = None, probability: Any = None) -> UIAction:
        """Any gesture, anywhere on the screen."""
        random = self.np_random
        pick = [kind for kind in self.kinds if kind != "key" or self.keys]
        kind = pick[int(random.integers(len(pick)))]
        x, to_x = (int(i) for i in random.integers(self.width, size=2))
        y, to_y = (int(i) for i in random.integers(self.height, size=2))
        amount = int(random.integers(-MOST_NOTCHES, MOST_NOTCHES + 1))
        texts = self.texts or ("hello",)
        text = texts[int(random.integers(len(texts)))]
        key = self.keys[int(random.integers(len(self.keys)))] if self.keys else ""
        return _only_used(UIAction(kind, x, y, to_x, to_y, amount, text, key))

    def encode(self, action: UIAction) -> str:
        """Kind and what it uses, such as `drag 1 2 30 40` or `type "text"`."""
        parts = [getattr(action, name) for name in _USES[action.kind]]
        return " ".join(
            [action.kind, *(compact_json(part) if action.kind == "type" else str(part) for part in parts)]
        )

    def decode(self, text: str) -> UIAction:
        """Reads what `encode` wrote."""
        kind, _, rest = text.partition(" ")
        uses = _USES.get(kind)
        if uses is None:
            raise ValueError(f"{kind[:64]!r} is no gesture; allowed: {', '.join(self.kinds)}")
        values: list[Any] = [json.loads(rest)] if kind == "type" else [rest] if kind == "key" else []
        values = values or [int(part) for part in rest.split()]
        if len(values) != len(uses):
            raise ValueError(f"{kind} needs {' '.join(uses) or 'nothing'}; found {rest[:64]!r}")
        return self._checked(UIAction(kind, **dict(zip(uses, values, strict=True))), text)  # type: ignore[arg-type]

    def to_vector(self, action: UIAction) -> Vector:
        """One-hot of the kind, then x, y, to_x, to_y, amount in [-1, 1], then one-hots of key and text.

        Raises:
            ValueError: a text that is not among `texts`.
        """
        if action.kind == "type" and action.text not in self.texts:
            raise ValueError(f"a vector holds the texts {list(self.texts)} only; found {action.text[:64]!r}")
        sizes = (self.width, self.height, self.width, self.height)
        places = (action.x, action.y, action.to_x, action.to_y)
        scaled = [
            0.0 if one is None else one / (size - 1) * 2 - 1 for one, size in zip(places, sizes, strict=True)
        ]
        return np.array(
            [
                *(float(kind == action.kind) for kind in self.kinds),
                *scaled,
                action.amount / MOST_NOTCHES,
                *(float(key == action.key) for key in self.keys),
                *(float(text == action.text and action.kind == "type") for text in self.texts),
            ]
        )

    def from_vector(self, vector: npt.ArrayLike) -> UIAction:
        """The gesture of a vector as in `to_vector`: the largest of each group, coordinates clamped and rounded."""
        k, n = len(self.kinds), len(self.keys)
        values = _shaped(vector, k + 5 + n + len(self.texts))
        kind = self.kinds[int(np.argmax(values[:k]))]
        sizes = (self.width, self.height, self.width, self.height)
        scaled = np.clip(np.nan_to_num(values[k : k + 5]), -1.0, 1.0)
        x, y, to_x, to_y = (
            round((one + 1) / 2 * (size - 1)) for one, size in zip(scaled, sizes, strict=False)
        )
        key = self.keys[int(np.argmax(values[k + 5 : k + 5 + n]))] if n else ""
        text = self.texts[int(np.argmax(values[k + 5 + n :]))] if self.texts else ""
        return _only_used(UIAction(kind, x, y, to_x, to_y, round(scaled[4] * MOST_NOTCHES), text, key))


class TextSpace(_Space[str]):
    """Texts of at most `max_length` characters."""

    def __init__(self, max_length: int = 100_000, seed: int | None = None) -> None:
        super().__init__(seed)
        self.max_length = max_length

    def __repr__(self) -> str:
        return f"TextSpace({self.max_length})"

    def contains(self, x: Any) -> bool:
        """Whether `x` is text that can be written as UTF-8 and is not too long."""
        return (
            isinstance(x, str) and len(x) <= self.max_length and not any("\ud800" <= c <= "\udfff" for c in x)
        )

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A few letters."""
        size = int(self.np_random.integers(min(self.max_length, 16) + 1))
        return "".join(chr(97 + int(i)) for i in self.np_random.integers(26, size=size))

    def encode(self, action: str) -> str:
        """The text itself."""
        return action

    def decode(self, text: str) -> str:
        """The text itself."""
        return self._checked(text, text)

    def to_vector(self, action: str) -> npt.NDArray[np.uint8]:
        """UTF-8 bytes, (N,)."""
        return np.frombuffer(action.encode(), dtype=np.uint8)

    def from_vector(self, vector: npt.ArrayLike) -> str:
        """The text of UTF-8 bytes."""
        return self.decode(np.asarray(vector, dtype=np.uint8).tobytes().decode())


_USES: dict[str, tuple[str, ...]] = {
    "click": ("x", "y"),
    "double_click": ("x", "y"),
    "right_click": ("x", "y"),
    "move": ("x", "y"),
    "drag": ("x", "y", "to_x", "to_y"),
    "scroll": ("x", "y", "amount"),
    "type": ("text",),
    "key": ("key",),
    "wait": (),
}
_POINTED = {kind for kind, uses in _USES.items() if "x" in uses}


def _only_used(action: UIAction) -> UIAction:
    """The action with the fields that its kind does not use at their defaults."""
    values: dict[str, Any] = {name: getattr(action, name) for name in _USES[action.kind]}
    return UIAction(action.kind, **values)


def _continuous(values: Vector) -> ContinuousAction:
    return ContinuousAction(tuple(float(value) for value in values))


def _shaped(values: npt.ArrayLike, size: int) -> Vector:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (size,):
        raise ValueError(f"a vector of {size} numbers is needed; found shape {array.shape}")
    return array
