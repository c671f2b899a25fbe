"""Adapters to agent frameworks, one file each: an agent of a framework practises and is deployed unchanged.

A framework is a file here with the functions of `Framework`. It imports its library inside them, so that the list of
frameworks needs none of them; a library that is not installed is an error that names the extra. Telemetry of the
libraries is switched off by the adapters: practice talks to its own server and to nothing else.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from melete import find
from melete.errors import ConfigError, MeleteError, MissingExtraError, ScenarioError

if TYPE_CHECKING:
    from melete.actions.tools import Tool
    from melete.agents.environment import Environment
    from melete.agents.guarded import GuardedTools
    from melete.agents.player import Agent
    from melete.agents.scenario import Scenario, Task
    from melete.agents.trained import TrainedAgent

PACKAGE = "melete.agents.frameworks"

Build = Callable[..., Any]
"""A user's function `build(base_url, api_key, tools)` that makes an agent of the framework, with the framework's tools.

It may also take `model`, `system_prompt` and `session`.
"""


class Framework(Protocol):
    """What a file in this folder holds.

    Attributes:
        LIBRARIES: modules that it needs.
        EXTRA: the extra that installs them.
    """

    LIBRARIES: tuple[str, ...]
    EXTRA: str

    def wrap_agent(self, agent: Any) -> Agent:
        """An agent that practises, from a function that builds the framework's agent, or from such an agent.

        Args:
            agent: see `Build`; or an agent of the framework, if it can be given another model and other tools.

        Raises:
            ConfigError: it is neither.
        """
        ...

    def extract_tools(self, agent: Any) -> list[Tool]:
        """The tools that an agent of the framework has, as ours.

        Raises:
            ConfigError: it is no agent of the framework.
        """
        ...

    def create_environment(
        self, agent: Any, scenario: Scenario, task: Task | None = None, **options: Any
    ) -> Environment:
        """An environment in which an agent of the framework can practise; see `environment_for`."""
        ...

    def default_agent(self) -> Agent:
        """The framework's plain agent that calls tools until it has something to say."""
        ...

    def to_agent(self, trained: TrainedAgent, guarded: GuardedTools) -> Any:
        """The framework's own agent object with a trained model, its prompt, and its tools behind its guard."""
        ...


def names() -> list[str]:
    """Sorted names of the frameworks; nothing is imported."""
    return find.names(PACKAGE)


def load(name: str) -> Framework:
    """The adapter to a framework; its libraries are imported here, so that no episode's time is spent on it.

    Raises:
        UnknownNameError: no adapter has that name.
        MissingExtraError: the framework is not installed.
    """
    adapter = cast(Framework, find.load(PACKAGE, name, "agent framework"))
    for module in adapter.LIBRARIES:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            library = module.partition(".")[0]
            if (error.name or "").partition(".")[0] != library:
                raise
            raise MissingExtraError(library, adapter.EXTRA) from error
    return adapter


def agent(name: str, build: str = "") -> Agent:
    """The agent of a framework that practises.

    Args:
        name: of the framework.
        build: `module:name` of a `Build` function or an agent object of the user's own, looked for from the working
            folder too; empty is the framework's plain agent.

    Raises:
        UnknownNameError: no adapter has that name.
        MissingExtraError: the framework is not installed.
        ConfigError: there is no such function, or it cannot be used.
    """
    adapter = load(name)
    return adapter.wrap_agent(_imported(build)) if build else adapter.default_agent()


def _imported(reference: str) -> Any:
    module, colon, attribute = reference.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(
            f"{reference!r} does not name an agent.", allowed="module:function, such as my_agent:build."
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), attribute)
    except MeleteError:
        raise
    except Exception as error:  # the module is its author's
        raise ConfigError(
            f"{reference} cannot be imported: {type(error).__name__}: {error}.",
            next_step="The module is looked for in the working folder and among the installed packages.",
        ) from error


def environment_for(
    tools: list[Tool], scenario: Scenario, task: Task | None = None, **options: Any
) -> Environment:
    """The scenario's environment, for an agent that brings tools of its own.

    In practice the scenario's world answers: a tool of the agent is replaced by the one of the same name.

    Args:
        tools: of the agent; may be empty.
        scenario: what is played.
        task: what to play; None draws one at each reset.
        **options: see `Scenario.create_environment`.

    Raises:
        ScenarioError: the agent has a tool that the scenario does not have, so its world could not answer.
    """
    known = scenario.toolset.names
    foreign = [tool.name for tool in tools if tool.name not in known]
    if foreign:
        raise ScenarioError(
            f"The agent has tools that {scenario.name} does not have: {', '.join(foreign)}.",
            allowed=f"Tools of {scenario.name}: {', '.join(known)}.",
            next_step="Take them away for practice, or write a scenario whose world answers them.",
        )
    return scenario.create_environment(task, **options)
