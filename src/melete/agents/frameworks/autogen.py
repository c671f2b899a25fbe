"""AutoGen (autogen-agentchat 0.7): an agent is an `AssistantAgent`.

An agent that is already built practises too: a copy of it gets the session's model and tools. Tools carry the
scenario's JSON schema and pass arguments on unchecked, so that wrong ones reach the guard and are counted. Every
episode has an event loop of its own, in its own thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from melete.agents.frameworks import environment_for
from melete.agents.frameworks._calling import async_http_client, build_with, check
from melete.errors import ConfigError

if TYPE_CHECKING:
    from autogen_agentchat.agents import AssistantAgent
    from autogen_core.models import ChatCompletionClient
    from autogen_core.tools import BaseTool

    from melete.actions.tools import Tool
    from melete.agents.environment import Environment
    from melete.agents.guarded import GuardedTools
    from melete.agents.player import Agent, Session
    from melete.agents.scenario import Scenario, Task
    from melete.agents.trained import TrainedAgent

LIBRARIES = ("autogen_agentchat.agents", "autogen_ext.models.openai")
EXTRA = "autogen"
ITERATIONS = 10_000
"""The environment says when it is enough."""


def default_agent() -> Agent:
    """See `Framework.default_agent`."""

    def build(session: Session, tools: list[Any]) -> AssistantAgent:
        model = model_client(session.base_url, session.api_key, session.model)
        return _assistant(model, tools, session.system_prompt)

    return wrap_agent(build)


def wrap_agent(agent: Any) -> Agent:
    """See `Framework.wrap_agent`; an `AssistantAgent` that is built already is copied for each episode."""
    from autogen_agentchat.agents import AssistantAgent

    if isinstance(agent, AssistantAgent):
        return _practise(lambda session, tools: _rebound(agent, session, tools))
    if not callable(agent):
        raise ConfigError(
            f"{type(agent).__name__} is no agent of AutoGen.",
            allowed="An AssistantAgent, or a function build(base_url, api_key, tools) that returns one.",
        )
    check(agent)
    return _practise(lambda session, tools: build_with(agent, session, tools))


def extract_tools(agent: Any) -> list[Tool]:
    """See `Framework.extract_tools`."""
    from melete.actions.tools import Tool

    return [
        Tool(
            name=tool.name,
            description=tool.description,
            parameters=dict(tool.schema.get("parameters") or {"type": "object"}),
            function=_caller(tool),
        )
        for tool in _tools_of(agent)
    ]


def create_environment(
    agent: Any, scenario: Scenario, task: Task | None = None, **options: Any
) -> Environment:
    """See `Framework.create_environment`; the agent may be None or the function that builds it."""
    from autogen_agentchat.agents import AssistantAgent

    tools = extract_tools(agent) if isinstance(agent, AssistantAgent) else []
    return environment_for(tools, scenario, task, **options)


def to_agent(trained: TrainedAgent, guarded: GuardedTools) -> AssistantAgent:
    """See `Framework.to_agent`."""
    tools = [tool_of(t.name, t.description, t.parameters, guarded.caller(t.name)) for t in guarded.tools]
    model = model_client(trained.base_url, trained.api_key, trained.model, trained.sampling)
    return _assistant(model, tools, trained.system_prompt)


def model_client(
    base_url: str, api_key: str, model: str, sampling: Mapping[str, Any] | None = None
) -> ChatCompletionClient:
    """AutoGen's client of a model at a URL."""
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    # The client goes to AsyncOpenAI; AutoGen does not declare it.
    passed_on: dict[str, Any] = {"http_client": async_http_client(), **(sampling or {})}
    return OpenAIChatCompletionClient(
        model=model,
        base_url=base_url,
        api_key=api_key,
        max_retries=0,
        **passed_on,
        model_info={
            "vision": False,
            "function_calling": True,
            "json_output": True,
            "family": "unknown",
            "structured_output": True,
        },
    )


def tool_of(
    name: str, description: str, parameters: dict[str, Any], call: Callable[[dict[str, Any]], str]
) -> BaseTool[Any, Any]:
    """An AutoGen tool that passes the arguments on as they are."""
    from autogen_core import CancellationToken
    from autogen_core.tools import BaseTool, ParametersSchema, ToolSchema
    from pydantic import BaseModel

    class Anything(BaseModel, extra="allow"):
        """Arguments of any shape."""

    class Passing(BaseTool[Any, Any]):
        @property
        def schema(self) -> ToolSchema:
            shape = ParametersSchema(
                **{"properties": {}, **parameters}  # type: ignore[typeddict-item]
            )
            return ToolSchema(name=name, description=description, parameters=shape)

        async def run(self, args: Anything, cancellation_token: CancellationToken) -> str:
            return call(args.model_dump())

        async def run_json(
            self, args: Any, cancellation_token: CancellationToken, call_id: str | None = None
        ) -> str:
            # Without AutoGen's own check: the environment judges what the model wrote.
            return call(dict(args))

    return Passing(Anything, str, name, description)


def _assistant(model: ChatCompletionClient, tools: list[Any], system_prompt: str) -> AssistantAgent:
    from autogen_agentchat.agents import AssistantAgent

    return AssistantAgent(
        "agent",
        model_client=model,
        tools=tools,
        system_message=system_prompt or None,
        max_tool_iterations=ITERATIONS,
        reflect_on_tool_use=False,
    )


def _practise(make: Callable[[Session, list[Any]], AssistantAgent]) -> Agent:
    async def play(session: Session) -> None:
        tools = [tool_of(t.name, t.description, t.parameters, t.call) for t in session.tools]
        agent = make(session, tools)
        said: str | None = session.request
        while said is not None:
            answer = await agent.run(task=said)
            said = session.say(answer.messages[-1].to_text())

    return play


def _rebound(agent: AssistantAgent, session: Session, tools: list[Any]) -> AssistantAgent:
    """A copy of an agent with the session's model and tools; its own instructions stay.

    AutoGen shows them in `dump_component` only, which refuses tools that it cannot write as source.
    """
    from autogen_agentchat.agents import AssistantAgent

    instructions = [str(message.content) for message in agent._system_messages]
    return AssistantAgent(
        agent.name,
        model_client=model_client(session.base_url, session.api_key, session.model),
        tools=tools,
        description=agent.description,
        system_message=instructions[0] if instructions else None,
        max_tool_iterations=agent._max_tool_iterations,
        reflect_on_tool_use=agent._reflect_on_tool_use,
    )


def _tools_of(agent: Any) -> list[BaseTool[Any, Any]]:
    from autogen_agentchat.agents import AssistantAgent
    from autogen_core.tools import StaticWorkbench

    if not isinstance(agent, AssistantAgent):
        raise ConfigError(f"Tools cannot be read from {type(agent).__name__}.", allowed="An AssistantAgent.")
    return [tool for bench in agent._workbench if isinstance(bench, StaticWorkbench) for tool in bench._tools]


def _caller(tool: BaseTool[Any, Any]) -> Callable[..., Any]:
    def call(**arguments: Any) -> Any:
        from autogen_core import CancellationToken

        return asyncio.run(tool.run_json(arguments, CancellationToken()))

    return call
