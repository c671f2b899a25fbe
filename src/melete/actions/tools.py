"""Tools: a typed function with a docstring becomes something that a model can call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from melete.actions.action import ToolAction

F = TypeVar("F", bound=Callable[..., Any])


class ToolFailure(Exception):
    """Raised by a tool: it did not succeed, and nothing was changed. The text is for the model to read."""

    def __init__(self, text: str, *, retry: bool = False) -> None:
        self.retry = retry
        super().__init__(text)


@dataclass(frozen=True)
class ToolResult:
    """How a call ended: `content` is what the model reads, `value` what the function returned."""

    ok: bool
    content: str
    error: str | None = None
    attempts: int = 1
    seconds: float = 0.0
    value: Any = None


@dataclass(frozen=True)
class Tool:
    """A function that a model can call."""

    name: str
    description: str
    parameters: dict[str, Any]
    function: Callable[..., Any]
    timeout_s: float | None = None
    retries: int = 0
    sandbox: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """The tool in OpenAI's form."""
        raise NotImplementedError


def tool(
    function: F | None = None, *, timeout_s: float | None = None, retries: int = 0, sandbox: bool = False
) -> Any:
    """Marks a function or method as a tool."""
    raise NotImplementedError


class ToolSet:
    """The tools of a scenario."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        raise NotImplementedError

    @classmethod
    def of(cls, world: type) -> ToolSet:
        """The methods of a class that are marked with `@tool`, collected once per class."""
        raise NotImplementedError

    @property
    def schemas(self) -> tuple[dict[str, Any], ...]:
        """The tools in OpenAI's form."""
        raise NotImplementedError

    def call(self, action: ToolAction, on: Any = None, idempotency_key: str | None = None) -> ToolResult:
        """Calls a tool; never raises for what the model or the tool did."""
        raise NotImplementedError
