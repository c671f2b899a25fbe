"""What the generator draws with and what it draws: `Draw`, tools, needs and chains.

Every choice comes from `random()` alone, whose sequence Python guarantees for a seed, so a row is the same on every
version of Python.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class Draw:
    """Seeded choices; see the head of this file."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(self._random.random() * len(options))]

    def mostly(self, usual: T, *others: T) -> T:
        """The usual option seven times in ten, else another."""
        return usual if self.chance(0.7) else self.pick(others)

    def number(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def chance(self, share: float) -> bool:
        """True with probability `share`."""
        return self._random.random() < share

    def some(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options, in random order."""
        indices = list(range(len(options)))
        for i in range(count):
            j = i + int(self._random.random() * (len(indices) - i))
            indices[i], indices[j] = indices[j], indices[i]
        return [options[index] for index in indices[:count]]


@dataclass(frozen=True)
class Tool:
    """A function that the assistant may call; `parameters` maps a name to its JSON schema."""

    name: str
    description: str
    parameters: dict[str, dict[str, Any]]
    optional: tuple[str, ...] = ()

    def to_openai(self) -> dict[str, Any]:
        """The tool in OpenAI's form, as compact as it can be."""
        required = [name for name in self.parameters if name not in self.optional]
        schema = {"type": "object", "properties": self.parameters, "required": required}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": schema},
        }


def tool(name: str, description: str, /, **parameters: Sequence[str]) -> Tool:
    """A tool from short types: `string`, `integer`, `number`, `boolean`, `list`, or values; `?` is optional."""
    schemas: dict[str, dict[str, Any]] = {}
    for key, kind in parameters.items():
        if not isinstance(kind, str):
            schemas[key] = {"type": "string", "enum": list(kind)}
        elif kind.startswith("list"):
            schemas[key] = {"type": "array", "items": {"type": "string"}}
        else:
            schemas[key] = {"type": kind.removesuffix("?")}
    optional = tuple(k for k, kind in parameters.items() if isinstance(kind, str) and kind.endswith("?"))
    return Tool(name, description, schemas, optional)


def compact(value: Any) -> str:
    """JSON without spaces between its parts; text stays as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Step:
    """One call and what the tool gives back."""

    tool: Tool
    arguments: dict[str, Any]
    result: Any


@dataclass(frozen=True)
class Missing:
    """The same need asked without one argument: the request, the question back, the reply."""

    ask: str
    question: str
    reply: str


@dataclass(frozen=True)
class Need:
    """Something that a user wants and one call fulfils.

    Attributes:
        purpose: what it is, after "I cannot": `check the weather`.
        ask: the request, a whole sentence.
        step: the call and its result.
        answer: what the assistant says about the result.
        failure: an error result and what the assistant says about it.
        missing: the request without an argument that the tool needs.
    """

    purpose: str
    ask: str
    step: Step
    answer: str
    failure: tuple[Any, str]
    missing: Missing | None = None


@dataclass(frozen=True)
class Chain:
    """Something that takes several calls, each of which needs the result of the one before."""

    ask: str
    steps: list[Step]
    answer: str
