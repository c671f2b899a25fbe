"""The plain `openai` client: an agent is a loop of chat completions and tool calls, twenty lines long.

Its default agent is what the other frameworks do without their machinery, and the fastest of them: every call that the
model writes goes to the environment as it was written, also one that cannot be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from melete.actions.tools import Tool
from melete.agents.frameworks import environment_for
from melete.agents.frameworks._calling import build_with, check, http_client
from melete.errors import ConfigError
from melete.records import ToolCall
from melete.serve.recording import turn_seed

if TYPE_CHECKING:
    import openai
    from openai.types import CompletionUsage
    from openai.types.chat import ChatCompletionChunk

    from melete.agents.environment import Environment
    from melete.agents.guarded import GuardedTools
    from melete.agents.player import Agent, Session
    from melete.agents.scenario import Scenario, Task
    from melete.agents.trained import TrainedAgent

LIBRARIES = ("openai", "openai.resources.chat")
EXTRA = "agents"


class ToolLoop:
    """A conversation with a model that calls tools: the framework's agent object, where there is no framework.

    Args:
        client: an OpenAI client.
        model: name of the model.
        tools: in OpenAI's form.
        call: told a tool's name and its arguments as the model wrote them, returns what the model reads.
        system_prompt: first message, if it is not empty.
        most_calls: of completions for one answer.
        sampling: options of every completion; from a `seed` each completion gets one of its own.

    Attributes:
        usage: what the server counted of each completion; None for one of which it told nothing.
    """

    def __init__(
        self,
        client: openai.OpenAI,
        model: str,
        tools: list[dict[str, Any]],
        call: Callable[[ToolCall], str],
        system_prompt: str = "",
        most_calls: int = 64,
        sampling: Mapping[str, Any] | None = None,
    ) -> None:
        self.client = client
        self.model = model
        self.tools = tools
        self.messages: list[dict[str, Any]] = []
        if system_prompt:
            self.messages.append({"role": "system", "content": system_prompt})
        self._call = call
        self._most_calls = most_calls
        self._sampling = dict(sampling or {})
        self._asked = 0
        self.usage: list[CompletionUsage | None] = []

    def ask(self, text: str) -> str:
        """Says something to the model and returns its answer, after all the calls that it wants to make."""
        self.messages.append({"role": "user", "content": text})
        tools: dict[str, Any] = {"tools": self.tools} if self.tools else {}
        for _ in range(self._most_calls):
            message = self._complete({**tools, **self._options()})
            self.messages.append(message)
            if not message.get("tool_calls"):
                return message.get("content") or ""
            for call in message["tool_calls"]:
                function = call["function"]
                asked = ToolCall(call["id"], function["name"], function["arguments"])
                self.messages.append({"role": "tool", "tool_call_id": asked.id, "content": self._call(asked)})
        return ""

    def _complete(self, options: dict[str, Any]) -> dict[str, Any]:
        """The next message of the model; token by token if it is asked for `stream`."""
        asked: Any = {"model": self.model, "messages": self.messages, **options}
        if asked.get("stream"):
            self.usage.append(None)
            return joined(self.client.chat.completions.create(**asked))
        answer = self.client.chat.completions.create(**asked)
        self.usage.append(answer.usage)
        message: dict[str, Any] = answer.choices[0].message.model_dump(exclude_none=True)
        return message

    def _options(self) -> dict[str, Any]:
        options = dict(self._sampling)
        if "seed" in options:
            options["seed"] = turn_seed(options["seed"], self._asked)
        self._asked += 1
        return options


def joined(chunks: Iterable[ChatCompletionChunk]) -> dict[str, Any]:
    """The message whose pieces a stream brings, as a request takes it back."""
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    calls: dict[int, dict[str, Any]] = {}
    for delta in (chunk.choices[0].delta for chunk in chunks if chunk.choices):
        message["content"] += delta.content or ""
        for piece in delta.tool_calls or ():
            empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            call = calls.setdefault(piece.index, empty)
            call["id"] += piece.id or ""
            if piece.function is not None:
                call["function"]["name"] += piece.function.name or ""
                call["function"]["arguments"] += piece.function.arguments or ""
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return message


def client_of(base_url: str, api_key: str) -> openai.OpenAI:
    """A client that shares its connections with all others."""
    import openai

    return openai.OpenAI(base_url=base_url, api_key=api_key, http_client=http_client())


def default_agent() -> Agent:
    """See `Framework.default_agent`."""
    return practise(plain)


def plain(session: Session) -> ToolLoop:
    """A conversation with the session's model, prompt and tools."""
    client = client_of(session.base_url, session.api_key)
    schemas = [tool.schema for tool in session.tools]
    return ToolLoop(
        client, session.model, schemas, session.propose, session.system_prompt, sampling=session.sampling
    )


def wrap_agent(agent: Any) -> Agent:
    """See `Framework.wrap_agent`; `build` returns a function that is told what the person says and answers."""
    if isinstance(agent, ToolLoop):
        return practise(lambda session: _rebound(agent, session))
    if not callable(agent):
        raise ConfigError(
            f"{type(agent).__name__} is no agent of the openai client.",
            allowed="A function build(base_url, api_key, tools) that returns a function: the person's words in, the "
            "answer out.",
        )
    check(agent)
    return practise(lambda session: build_with(agent, session, list(session.tools)))


def extract_tools(agent: Any) -> list[Tool]:
    """See `Framework.extract_tools`; of a `ToolLoop`, or of a list of functions marked with `@tool`."""
    if isinstance(agent, ToolLoop):
        return [
            _tool(agent, schema["function"]) for schema in agent.tools if schema.get("type") == "function"
        ]
    if isinstance(agent, (list, tuple)):
        found = [one if isinstance(one, Tool) else getattr(one, "__tool__", None) for one in agent]
        if None not in found:
            return [one for one in found if one is not None]
    raise ConfigError(
        f"Tools cannot be read from {type(agent).__name__}.",
        allowed="A ToolLoop, or a list of @tool functions.",
    )


def create_environment(
    agent: Any, scenario: Scenario, task: Task | None = None, **options: Any
) -> Environment:
    """See `Framework.create_environment`."""
    return environment_for(extract_tools(agent) if agent is not None else [], scenario, task, **options)


def to_agent(trained: TrainedAgent, guarded: GuardedTools) -> ToolLoop:
    """See `Framework.to_agent`."""
    client = client_of(trained.base_url, trained.api_key)
    schemas = [tool.schema for tool in guarded.tools]
    return ToolLoop(
        client, trained.model, schemas, guarded.propose, trained.system_prompt, sampling=trained.sampling
    )


def practise(make: Callable[[Session], Any]) -> Agent:
    """An agent that says what the person says to what `make` gives it for a session, until the episode is over."""

    def agent(session: Session) -> None:
        answer = make(session)
        answer = answer.ask if isinstance(answer, ToolLoop) else answer
        said: str | None = session.request
        while said is not None:
            said = session.say(str(answer(said)))

    return agent


def _rebound(agent: ToolLoop, session: Session) -> ToolLoop:
    """The same agent with the session's model and tools; its own system prompt stays."""
    prompts = [m["content"] for m in agent.messages if m["role"] == "system"]
    prompt = prompts[0] if prompts else session.system_prompt
    client = client_of(session.base_url, session.api_key)
    schemas = [tool.schema for tool in session.tools]
    return ToolLoop(
        client, session.model, schemas, session.propose, prompt, agent._most_calls, session.sampling
    )


def _tool(agent: ToolLoop, function: dict[str, Any]) -> Tool:
    def call(**arguments: Any) -> str:
        return agent._call(ToolCall("call_0", function["name"], json.dumps(arguments)))

    return Tool(
        function["name"],
        function.get("description", ""),
        function.get("parameters") or {"type": "object"},
        call,
    )
