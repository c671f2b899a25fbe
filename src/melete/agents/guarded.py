"""The tools of one conversation of a trained agent: every call is judged by the guard, then made by your functions.

What the model reads when a call fails or is refused is worded as in practice (`environment.py`), so that it does next
what it has learned. Calls are made one at a time, in the order in which they come, whatever threads a framework uses: a
budget is not spent twice. A tool for which no function was given answers that it is not connected.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from melete.actions.action import ToolAction
from melete.actions.guard import Guard, Judgement, Verdict
from melete.actions.tools import Tool, ToolFailure, ToolResult, ToolSet
from melete.actions.trace import TraceWriter
from melete.agents.scenario import World
from melete.errors import ConfigError
from melete.records import ToolCall

NOT_CONNECTED = "This tool is not connected here."
Functions = Iterable[Tool | Callable[..., Any]] | World | None


class GuardedTools:
    """See the head of this file.

    Args:
        agent: its name, for messages and the trace.
        schemas: its tools, with the names, descriptions and schemas that it practised with.
        guard: judges every call.
        functions: by the names of the tools (plain, `@tool` or `Tool`), or a world of the scenario.
        facts: what the guard may know from the start; a world has its own.
        confirm: asked when the guard wants a person to confirm a call; a world answers itself.
        trace: every call is written there.

    Attributes:
        tools: the tools, connected.

    Raises:
        ConfigError: a function that the agent has no tool for.
    """

    def __init__(
        self,
        agent: str,
        schemas: Iterable[dict[str, Any]],
        guard: Guard,
        functions: Functions = None,
        *,
        facts: Mapping[str, Any] | None = None,
        confirm: Callable[[ToolAction], bool] = lambda action: False,
        trace: TraceWriter | None = None,
    ) -> None:
        known = [schema["function"] for schema in schemas]
        connected = _connected(agent, [function["name"] for function in known], functions)
        self.tools = [_tool(function, connected) for function in known]
        self._set = ToolSet(self.tools)
        self._world = functions if isinstance(functions, World) else None
        self._confirm = self._world.confirm if self._world else confirm
        self._guard = guard.start(self._world.facts() if self._world else facts)
        self._trace, self._agent, self._episode = trace, agent, secrets.token_hex(8)
        self._steps = 0
        self._lock = threading.Lock()

    def caller(self, name: str) -> Callable[[dict[str, Any]], str]:
        """A function that proposes a call of one tool and returns what the model reads."""
        return lambda arguments: self.act(ToolAction(name, arguments))

    def propose(self, call: ToolCall) -> str:
        """Proposes a call as a model wrote it; what comes back is for the model to read."""
        try:
            action = ToolAction.from_call(call)
        except ValueError:
            return "Error: not a tool call with JSON arguments"
        return self.act(action)

    def act(self, action: ToolAction) -> str:
        """Judges a call and makes it as far as it is allowed; what comes back is for the model to read."""
        with self._lock:
            judgement = self._guard.judge(action)
            if judgement.verdict is Verdict.ASK and self._confirm(action):
                self._guard.confirm(action)
                judgement = self._guard.judge(action)
            allowed = judgement.action
            if judgement.verdict not in (Verdict.ALLOW, Verdict.CLAMP) or not isinstance(allowed, ToolAction):
                answer = self._refused(action, judgement)
                self._write(action, judgement, None, answer, None)
                return answer
            result = self._set.call(allowed, on=self._world)
            self._guard.record(allowed, result.ok, result.value)
            self._write(action, judgement, allowed, result.content, result)
            return result.content

    def _refused(self, action: ToolAction, judgement: Judgement) -> str:
        """What the model reads; what is wrong with the call helps it more than that it was refused."""
        if action.name not in self._set.names:
            return f"Error: there is no tool {action.name[:64]}"
        problems = self._set.problems(action)
        if problems:
            return f"Error: {' '.join(problems[:2])}"
        said = judgement.reasons[0] if judgement.reasons else ""
        # The guard's sentences begin with "NAME is refused: "; the agent knows what it called.
        reason = re.sub(r"^\S+ (is refused|has to wait): ", "", said) or judgement.verdict.value
        return f"Refused: {reason}"

    def _write(
        self,
        proposed: ToolAction,
        judgement: Judgement,
        executed: ToolAction | None,
        read: str,
        result: ToolResult | None,
    ) -> None:
        self._steps += 1
        if self._trace is None:
            return
        self._trace.write(
            time_s=time.time(),
            step=self._steps,
            run=self._agent,
            episode=self._episode,
            proposed=proposed,
            verdict=judgement.verdict,
            reasons=list(judgement.reasons),
            rule=judgement.rule,
            executed=executed,
            result=read,
            ok=result is not None and result.ok,
        )


def _connected(agent: str, own: list[str], functions: Functions) -> dict[str, Tool | Callable[..., Any]]:
    if isinstance(functions, World):
        known = ToolSet.of(type(functions))
        return {name: known[name] for name in known.names}
    given = {_name(one): one for one in functions or ()}
    unknown = sorted(set(given) - set(own))
    if unknown:
        raise ConfigError(
            f"{agent} has no tool for {', '.join(unknown)}.", allowed=f"Its tools: {', '.join(own)}."
        )
    return given


def _tool(function: dict[str, Any], connected: dict[str, Tool | Callable[..., Any]]) -> Tool:
    """A tool as the agent knows it, with the function that was given for it."""
    name, description = function["name"], function.get("description", "")
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    given = connected.get(name, _not_connected)
    own = _own(given)
    if own is not None:
        return replace(own, name=name, description=description, parameters=parameters)
    assert not isinstance(given, Tool)
    return Tool(name, description, parameters, given)


def _not_connected(**arguments: Any) -> str:
    raise ToolFailure(NOT_CONNECTED)


def _name(one: Tool | Callable[..., Any]) -> str:
    own = _own(one)
    return own.name if own is not None else str(getattr(one, "__name__", type(one).__name__))


def _own(one: Tool | Callable[..., Any]) -> Tool | None:
    """The `Tool` that something is, or that `@tool` made of it."""
    found = one if isinstance(one, Tool) else getattr(one, "__tool__", None)
    return found if isinstance(found, Tool) else None
