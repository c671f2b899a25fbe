"""Tools: a typed function with a docstring becomes something that a model can call.

    class Shop:
        @tool
        def get_order(self, order_id: str) -> dict[str, Any]:
            '''Looks up an order.

            Args:
                order_id: The order's id, such as O-1042.
            '''
            if order_id not in self.orders:
                raise ToolFailure(f"There is no order {order_id}.")
            return self.orders[order_id]

    ToolSet.of(Shop).call(ToolAction("get_order", {"order_id": "O-1042"}), on=shop)

A call never raises for what the model or the tool did: a wrong name, wrong arguments, a `ToolFailure`, any other
exception and a timeout come back as a `ToolResult` whose error the model can act on. Arguments are checked against the
schema and handed over as they are (2.0 for an integer becomes 2).

**A retry never acts twice.** Only what surely changed nothing is tried again: `ToolFailure(…, retry=True)`, and a
timeout of a tool that is `repeatable` (it only reads) or that takes a parameter `idempotency_key`, which it passes on
to whatever it acts on. A caller that repeats a whole call gives the same `idempotency_key` (`ledger.py`).

Model text never reaches a shell; a tool that runs a program takes a list of arguments (`command.py`).
"""

from __future__ import annotations

import functools
import inspect
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, TypeVar, cast, overload

from melete.actions import attempt
from melete.actions.action import ToolAction, compact_json
from melete.actions.attempt import ToolCrash, ToolFailure, ToolTimeout
from melete.actions.ledger import Ledger, ToolResult
from melete.actions.schema import check_schema, compile_schema
from melete.actions.signature import INJECTED, schema_of
from melete.errors import ScenarioError, UnknownNameError

__all__ = ["Ledger", "Tool", "ToolFailure", "ToolResult", "ToolSet", "tool"]

F = TypeVar("F", bound=Callable[..., Any])

MAX_CHARS = 16_000
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0


@dataclass(frozen=True)
class Tool:
    """A function that a model can call.

    Attributes:
        name: letters, digits, `_` and `-`, at most 64.
        description: what it does, for the model.
        parameters: JSON schema of the arguments, an object; arguments that it does not name are refused unless it has
            `additionalProperties`.
        function: called with the arguments by name.
        timeout_s: wall time of one attempt; None runs inline and is not bounded (see `attempt.py`).
        retries: how often it is tried again, after a pause that doubles, when that is safe.
        sandbox: whether it runs in a child process (needs `timeout_s`).
        repeatable: whether it only reads, so that it may be tried again after a timeout.
        method: whether the function takes the world first.
        max_chars: the most characters of a result that the model reads; the rest is cut, and it is said so.

    Raises:
        ScenarioError: a bad name, parameters that are no JSON schema, or options that contradict each other.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    function: Callable[..., Any]
    timeout_s: float | None = None
    retries: int = 0
    sandbox: bool = False
    repeatable: bool = False
    method: bool = False
    max_chars: int = MAX_CHARS

    def __post_init__(self) -> None:
        what = f"The tool {self.name}"
        if not NAME.fullmatch(self.name):
            raise ScenarioError(
                f"{self.name!r} is no name of a tool.",
                allowed="Allowed: letters, digits, '_' and '-', at most 64.",
            )
        if getattr(self.function, "__tool_schema__", None) is not self.parameters:
            check_schema(self.parameters, what)
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise ScenarioError(f"{what} has timeout_s {self.timeout_s}; allowed: a time above 0, or None.")
        if self.sandbox and (self.timeout_s is None or self.method or "<" in self.function.__qualname__):
            raise ScenarioError(
                f"{what} cannot run in a child process.",
                allowed="Allowed with sandbox=True: a function at the top of a module, with a timeout_s.",
            )

    @property
    def schema(self) -> dict[str, Any]:
        """The tool in OpenAI's form."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


@overload
def tool(function: F) -> F: ...
@overload
def tool(**options: Any) -> Callable[[F], F]: ...
def tool(function: F | None = None, **options: Any) -> Any:
    """Marks a function or method as a tool; it can still be called as before.

    Args:
        function: typed, with a Google-style docstring.
        **options: fields of `Tool`, such as `timeout_s`, `retries`, `sandbox`, `repeatable` or `name`.

    Raises:
        ScenarioError: see `signature.schema_of` and `Tool`.
    """
    if function is None:
        return functools.partial(tool, **options)
    description, parameters = schema_of(function)
    marked = cast(Any, function)
    marked.__tool_schema__ = parameters  # comes from type hints, so it need not be checked
    method = next(iter(inspect.signature(function).parameters), None) == "self"
    values = {"name": function.__name__, "description": description, "method": method, **options}
    marked.__tool__ = Tool(parameters=parameters, function=function, **values)
    return function


class ToolSet:
    """Tools by name, with their checks compiled; safe to share between episodes and threads.

    Args:
        tools: tools, or functions marked with `@tool`.
        ledger: where results are kept by idempotency key; in memory by default.
        seed: seed of the jitter in pauses.
        sleep: waits for some seconds between attempts.

    Raises:
        ScenarioError: two tools of one name, or a function that is not marked.
    """

    def __init__(
        self,
        tools: Iterable[Tool | Callable[..., Any]],
        *,
        ledger: Ledger | None = None,
        seed: int = 0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ledger, self._seed, self._sleep = ledger or Ledger(), seed, sleep
        self._tools: dict[str, _Ready] = {}
        for one in tools:
            made = one if isinstance(one, Tool) else getattr(one, "__tool__", None)
            if made is None:
                raise ScenarioError(
                    f"{getattr(one, '__name__', one)} is no tool.", next_step="Mark it with @tool."
                )
            if made.name in self._tools:
                raise ScenarioError(f"Two tools have the name {made.name}.")
            self._tools[made.name] = _Ready(made)
        self._schemas = tuple(ready.tool.schema for ready in self._tools.values())

    @classmethod
    @functools.cache
    def of(cls, world: type) -> ToolSet:
        """The methods of a class that are marked with `@tool`, in the order of their definition; one set per class."""
        named = {name: value for base in reversed(world.__mro__) for name, value in vars(base).items()}
        return cls([value.__tool__ for value in named.values() if hasattr(value, "__tool__")])

    @property
    def schemas(self) -> tuple[dict[str, Any], ...]:
        """The tools in OpenAI's form."""
        return self._schemas

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tools, in order."""
        return tuple(self._tools)

    def __getitem__(self, name: str) -> Tool:
        """A tool by name.

        Raises:
            UnknownNameError: there is none.
        """
        if name not in self._tools:
            raise UnknownNameError("tool", name, self._tools)
        return self._tools[name].tool

    def problems(self, action: ToolAction) -> list[str]:
        """What is wrong with a call's name or arguments, one sentence each; empty if it may be made."""
        ready = self._tools.get(action.name)
        if ready is None:
            return [UnknownNameError("tool", action.name, self._tools).args[0].replace("\n", " ")]
        return ready.problems(action.arguments)

    def call(self, action: ToolAction, on: Any = None, idempotency_key: str | None = None) -> ToolResult:
        """Checks the arguments and calls the tool.

        Args:
            action: what the model asks for.
            on: the world, for tools that are methods.
            idempotency_key: a call that comes again with this key gets the first one's result and does not act.

        Raises:
            ScenarioError: the tool is a method and `on` was not given.
        """
        started_s = time.perf_counter()
        ready = self._tools.get(action.name)
        problems = ready.problems(action.arguments) if ready else self.problems(action)
        if ready is None or problems:
            return _failed(" ".join(problems[:4]), 0, started_s)
        if ready.tool.method and on is None:
            raise ScenarioError(f"The tool {action.name} is a method; the world to call it on was not given.")
        if idempotency_key is None:
            return self._attempts(ready, action, on, None, started_s)[0]
        before = self._ledger.begin(idempotency_key, action.key)
        if before is not None:
            return before
        result, ending = None, "unknown"
        try:
            result, ending = self._attempts(ready, action, on, idempotency_key, started_s)
        finally:
            if ending == "nothing done":
                self._ledger.free(idempotency_key)
            else:
                self._ledger.end(idempotency_key, result if ending == "done" else None)
        return result

    def _attempts(
        self, ready: _Ready, action: ToolAction, on: Any, key: str | None, started_s: float
    ) -> tuple[ToolResult, str]:
        """The result, and whether it acted: `done`, `nothing done` or `unknown`."""
        one, count = ready.tool, 0
        while True:
            count += 1
            try:
                value = ready.run(action.arguments, on, key)
                return _succeeded(value, one.max_chars, count, started_s), "done"
            except ToolFailure as failure:
                again, ending, text = failure.retry, "nothing done", str(failure)
            except ToolTimeout as timeout:
                again = one.repeatable or (ready.keyed and key is not None)
                ending, text = "unknown", f"{one.name} did not answer within {timeout.timeout_s:g} s."
            except ToolCrash as crash:
                again, ending, text = False, "done", f"{one.name} failed: {crash}"
            except Exception as error:  # the author's code
                again, ending, text = False, "done", f"{one.name} failed: {type(error).__name__}: {error}"
            if not again or count > one.retries:
                return _failed(text, count, started_s), ending
            self._sleep(self._pause_s(action, count))

    def _pause_s(self, action: ToolAction, count: int) -> float:
        """Pause after the attempt number `count`: doubling, with half of it drawn at random."""
        longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (count - 1))
        jitter = random.Random(f"{self._seed} {count} {action.key}")
        return longest_s * jitter.uniform(0.5, 1.0)


class _Ready:
    """A tool with its check compiled."""

    def __init__(self, one: Tool) -> None:
        self.tool = one
        self.problems = compile_schema(one.parameters, closed=True)
        names = inspect.signature(one.function).parameters
        properties = one.parameters.get("properties", {})
        self.keyed = INJECTED in names and INJECTED not in properties
        self.integers = [
            name
            for name, value in properties.items()
            if isinstance(value, dict) and value.get("type") == "integer"
        ]

    def run(self, arguments: dict[str, Any], on: Any, key: str | None) -> Any:
        """One attempt."""
        one, function = self.tool, self.tool.function
        for name in self.integers:
            if isinstance(arguments.get(name), float):  # 2.0 is an integer in JSON, but not in Python
                arguments = {**arguments, name: int(arguments[name])}
        if self.keyed:
            arguments = {**arguments, INJECTED: key}
        if one.sandbox:
            return attempt.in_process(function, arguments, one.timeout_s or 0.0)
        if one.method:
            function = functools.partial(function, on)
        if one.timeout_s is None:
            return attempt.inline(function, arguments)
        return attempt.in_thread(function, arguments, one.timeout_s)


def _succeeded(value: Any, max_chars: int, attempts: int, started_s: float) -> ToolResult:
    content = cut(value if isinstance(value, str) else _text(value), max_chars)
    return ToolResult(True, content, None, attempts, time.perf_counter() - started_s, value)


def _failed(text: str, attempts: int, started_s: float) -> ToolResult:
    text = cut(text, 2_000)
    return ToolResult(False, f"Error: {text}", text, attempts, time.perf_counter() - started_s)


def cut(text: str, max_chars: int) -> str:
    """The text, or its beginning with a note of how much there was."""
    if len(text) <= max_chars:
        return text
    return f"{text[:max_chars]}\n[cut: the first {max_chars:,} of {len(text):,} characters]"


def _text(value: Any) -> str:
    try:
        return compact_json(value)
    except (TypeError, ValueError):
        return compact_json(
            asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
        )
