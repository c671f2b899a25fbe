"""LangChain 1.x: an agent is the graph that `langchain.agents.create_agent` (or LangGraph) compiles.

A graph holds its model for good, so an agent practises as the function that builds it: `build(base_url, api_key,
tools)`. Tools are given to it with the scenario's JSON schema and without a check of LangChain's own, so that wrong
arguments reach the guard and are counted. Calls of one turn are made one after another, in order, so that an episode
can be repeated. A call that LangChain cannot read (`invalid_tool_calls`) is answered as the environment answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from melete.agents.frameworks import environment_for
from melete.agents.frameworks._calling import build_with, check, http_client
from melete.errors import ConfigError
from melete.records import ToolCall

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import BaseTool
    from langgraph.graph.state import CompiledStateGraph

    from melete.actions.tools import Tool
    from melete.agents.environment import Environment
    from melete.agents.guarded import GuardedTools
    from melete.agents.player import Agent, Session
    from melete.agents.scenario import Scenario, Task
    from melete.agents.trained import TrainedAgent

LIBRARIES = ("langchain.agents", "langchain_openai")
EXTRA = "langchain"
RUN: Any = {"recursion_limit": 10_000, "max_concurrency": 1}
"""The environment says when it is enough; one call at a time."""


def default_agent() -> Agent:
    """See `Framework.default_agent`."""

    def build(session: Session, tools: list[BaseTool]) -> Any:
        model = chat_model(session.base_url, session.api_key, session.model, session.sampling)
        return _graph(model, tools, session.system_prompt)

    return wrap_agent(build)


def wrap_agent(agent: Any) -> Agent:
    """See `Framework.wrap_agent`; a graph that is built already cannot be given another model."""
    if hasattr(agent, "invoke") or not callable(agent):
        raise ConfigError(
            f"{type(agent).__name__} holds its model for good, so it cannot practise as it is.",
            allowed="A function build(base_url, api_key, tools) that returns a LangChain agent.",
            next_step="Move the lines that make the agent into such a function, and give it to wrap_agent.",
        )

    check(agent)

    def play(session: Session) -> None:
        from langsmith import tracing_context

        with tracing_context(enabled=False):
            tools = [tool_of(t.name, t.description, t.parameters, t.call) for t in session.tools]
            _converse(build_with(agent, session, tools), session)

    return play


def extract_tools(agent: Any) -> list[Tool]:
    """See `Framework.extract_tools`."""
    from langchain_core.utils.function_calling import convert_to_openai_tool

    from melete.actions.tools import Tool

    nodes = getattr(agent, "nodes", None)
    if not isinstance(nodes, dict):
        raise ConfigError(
            f"Tools cannot be read from {type(agent).__name__}.",
            allowed="An agent that create_agent returned.",
        )
    found: dict[str, BaseTool] = {}
    for node in nodes.values():
        found.update(getattr(getattr(node, "bound", None), "tools_by_name", {}))
    tools = []
    for name, tool in found.items():
        function = convert_to_openai_tool(tool)["function"]
        tools.append(Tool(name, function.get("description", ""), function["parameters"], _caller(tool)))
    return tools


def create_environment(
    agent: Any, scenario: Scenario, task: Task | None = None, **options: Any
) -> Environment:
    """See `Framework.create_environment`; the agent may be None or the function that builds it."""
    tools = extract_tools(agent) if hasattr(agent, "nodes") else []
    return environment_for(tools, scenario, task, **options)


def to_agent(trained: TrainedAgent, guarded: GuardedTools) -> CompiledStateGraph[Any, Any, Any, Any]:
    """See `Framework.to_agent`."""
    tools = [tool_of(t.name, t.description, t.parameters, guarded.caller(t.name)) for t in guarded.tools]
    model = chat_model(trained.base_url, trained.api_key, trained.model, trained.sampling)
    graph: CompiledStateGraph[Any, Any, Any, Any] = _graph(model, tools, trained.system_prompt)
    return graph


def chat_model(
    base_url: str, api_key: str, model: str, sampling: Mapping[str, Any] | None = None
) -> BaseChatModel:
    """LangChain's client of a model at a URL; connections are shared."""
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    return ChatOpenAI(
        base_url=base_url,
        api_key=SecretStr(api_key),
        model=model,
        http_client=http_client(),
        max_retries=0,
        use_responses_api=False,
        **_options(sampling or {}),
    )


def _options(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a completion in LangChain's names."""
    return {("streaming" if name == "stream" else name): value for name, value in sampling.items()}


def tool_of(
    name: str, description: str, parameters: dict[str, Any], call: Callable[[dict[str, Any]], str]
) -> BaseTool:
    """A LangChain tool that passes the arguments on as they are."""
    from langchain_core.tools import BaseTool

    class Passing(BaseTool):
        def _run(self, **arguments: Any) -> str:
            return call(arguments)

    return Passing(name=name, description=description, args_schema=parameters)


def _graph(model: BaseChatModel, tools: list[BaseTool], system_prompt: str) -> Any:
    from langchain.agents import create_agent

    return create_agent(model, tools, system_prompt=system_prompt or None)


def _converse(graph: Any, session: Session) -> None:
    """The agent and the person take turns until one of them has nothing more to say."""
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    said: str | None = session.request
    messages: list[Any] = []
    while said is not None:
        messages.append(HumanMessage(said))
        messages = graph.invoke({"messages": messages}, RUN)["messages"]
        while isinstance(last := messages[-1], AIMessage) and last.invalid_tool_calls and not last.tool_calls:
            for call in last.invalid_tool_calls:
                asked = ToolCall(call["id"] or "", call["name"] or "", call["args"] or "")
                messages.append(ToolMessage(session.propose(asked), tool_call_id=asked.id))
            messages = graph.invoke({"messages": messages}, RUN)["messages"]
        said = session.say(last.text)


def _caller(tool: BaseTool) -> Callable[..., Any]:
    def call(**arguments: Any) -> Any:
        return tool.invoke(arguments)

    return call
