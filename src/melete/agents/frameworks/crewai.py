"""CrewAI 1.x: an agent is a `crewai.Agent`, asked by `kickoff`.

Its pins contradict those of the rest, so it lives in an environment of its own (`python tools/envs.py crewai`), with
Melete beside it. An agent that is already built practises too: a copy of it gets the session's model and tools.
Tools carry the scenario's JSON schema (CrewAI makes every argument required in it) and pass arguments on unchecked;
CrewAI's cache of tool results and its parallel calls are off, since a call that does not arrive changes nothing and one
that arrives in another order is another episode.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from melete.agents.frameworks import environment_for
from melete.agents.frameworks._calling import build_with, check
from melete.errors import ConfigError

if TYPE_CHECKING:
    from melete.actions.tools import Tool
    from melete.agents.environment import Environment
    from melete.agents.guarded import GuardedTools
    from melete.agents.player import Agent, Session
    from melete.agents.scenario import Scenario, Task
    from melete.agents.trained import TrainedAgent

LIBRARIES = ("crewai",)
EXTRA = "crewai"
ITERATIONS = 10_000
"""The environment says when it is enough."""
QUIET = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
}
"""CrewAI reads these when it is imported, which whoever loads this file is about to do."""
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)


def default_agent() -> Agent:
    """See `Framework.default_agent`."""

    def build(session: Session, tools: list[Any]) -> Any:
        return _agent(
            model_of(session.base_url, session.api_key, session.model), tools, session.system_prompt
        )

    return wrap_agent(build)


def wrap_agent(agent: Any) -> Agent:
    """See `Framework.wrap_agent`; an `Agent` that is built already is copied for each episode."""
    crewai = _crewai()
    if isinstance(agent, crewai.Agent):
        return _practise(lambda session, tools: _rebound(agent, session, tools))
    if not callable(agent):
        raise ConfigError(
            f"{type(agent).__name__} is no agent of CrewAI.",
            allowed="A crewai.Agent, or a function build(base_url, api_key, tools) that returns one.",
        )
    check(agent)
    return _practise(lambda session, tools: build_with(agent, session, tools))


def extract_tools(agent: Any) -> list[Tool]:
    """See `Framework.extract_tools`."""
    from melete.actions.tools import Tool

    if not isinstance(agent, _crewai().Agent):
        raise ConfigError(f"Tools cannot be read from {type(agent).__name__}.", allowed="A crewai.Agent.")
    return [
        Tool(tool.name, tool.description, tool.args_schema.model_json_schema(), tool.run)
        for tool in agent.tools or []
    ]


def create_environment(
    agent: Any, scenario: Scenario, task: Task | None = None, **options: Any
) -> Environment:
    """See `Framework.create_environment`; the agent may be None or the function that builds it."""
    tools = extract_tools(agent) if isinstance(agent, _crewai().Agent) else []
    return environment_for(tools, scenario, task, **options)


def to_agent(trained: TrainedAgent, guarded: GuardedTools) -> Any:
    """See `Framework.to_agent`."""
    tools = [tool_of(t.name, t.description, t.parameters, guarded.caller(t.name)) for t in guarded.tools]
    model = model_of(trained.base_url, trained.api_key, trained.model, trained.sampling)
    return _agent(model, tools, trained.system_prompt)


def model_of(base_url: str, api_key: str, model: str, sampling: Mapping[str, Any] | None = None) -> Any:
    """CrewAI's client of a model at a URL."""
    return _crewai().LLM(
        model=model,
        custom_openai=True,
        base_url=base_url,
        api_key=api_key,
        max_retries=0,
        timeout=600.0,
        **(sampling or {}),
    )


def tool_of(
    name: str, description: str, parameters: dict[str, Any], call: Callable[[dict[str, Any]], str]
) -> Any:
    """A CrewAI tool that passes the arguments on as they are."""
    from crewai.tools import BaseTool  # type: ignore[import-not-found]
    from pydantic import BaseModel

    class Arguments(BaseModel, extra="allow"):
        @classmethod
        def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
            return copy.deepcopy(parameters)

    class Passing(BaseTool):  # type: ignore[misc]
        def run(self, **arguments: Any) -> str:
            return call(arguments)

        def _run(self, **arguments: Any) -> str:
            return call(arguments)

    # A tool with a limit, however high, is not called in parallel with others.
    return Passing(
        name=name,
        description=description or name,
        args_schema=Arguments,
        cache_function=_never,
        max_usage_count=2**31,
    )


def _crewai() -> Any:
    import crewai  # type: ignore[import-not-found]

    return crewai


@functools.cache
def _silence() -> None:
    """Keeps CrewAI's panels and its remarks on every call out of the output of a practice run."""
    from crewai.events.event_listener import event_listener  # type: ignore[import-not-found]

    event_listener.formatter.console.quiet = True
    logging.getLogger("crewai").setLevel(logging.CRITICAL)
    # CrewAI logs to the root what an agent notices when its episode is over.
    logging.getLogger().addFilter(lambda record: "episode is over" not in record.getMessage())


def _never(*_: Any) -> bool:
    return False


def _agent(model: Any, tools: list[Any], system_prompt: str) -> Any:
    return _crewai().Agent(
        role="assistant",
        goal="Do what the person asks for.",
        backstory=system_prompt,
        llm=model,
        tools=tools,
        cache=False,
        max_iter=ITERATIONS,
    )


def _practise(make: Callable[[Session, list[Any]], Any]) -> Agent:
    def play(session: Session) -> None:
        _silence()
        tools = [tool_of(t.name, t.description, t.parameters, t.call) for t in session.tools]
        agent = make(session, tools)
        said: str | None = session.request
        messages: list[Any] = []
        while said is not None:
            messages.append({"role": "user", "content": said})
            answer = agent.kickoff(messages)
            messages = [message for message in answer.messages if message["role"] != "system"]
            said = session.say(answer.raw)

    return play


def _rebound(agent: Any, session: Session, tools: list[Any]) -> Any:
    """A copy of an agent with the session's model and tools; its own instructions stay."""
    copied = agent.copy()
    copied.llm = model_of(session.base_url, session.api_key, session.model)
    copied.tools, copied.cache = tools, False
    return copied
