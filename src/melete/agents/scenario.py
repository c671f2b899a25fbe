"""What a scenario is: a task family for an agent, with its tools, worlds, guard, requests, reward and criteria.

A scenario is a file `agents/scenarios/<name>.py` that exports its class as `SCENARIO`; files of your own are found in
`./scenarios` and in `<home>/scenarios` too. `load(name)` gives an instance, which is fixed: everything that changes in
an episode is in the `World` that it builds for a `Task`.

The reward is a difference of values, `value(next_state) - value(state)`, so that the rewards of an episode sum to the
value at its end whatever path led there (potential-based shaping: Ng, Harada and Russell 1999). The value of a solved
task is 1 less its costs; of one that is not, at most `PARTIAL` for the steps that were right, less the same costs.

Limits: a scenario talks to one simulated person and its tools change one world; what a criterion sees is the state
alone, which must be writable as JSON.
"""

from __future__ import annotations

import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from melete import find, settings
from melete.actions.action import Message, ToolAction
from melete.errors import ConfigError, MeleteError, ScenarioError, ScenarioNotFoundError
from melete.records import Conversation, Turn

if TYPE_CHECKING:
    from melete.actions.guard import Guard
    from melete.actions.prompts import Prompt
    from melete.actions.tools import ToolSet
    from melete.actions.trace import TraceWriter
    from melete.agents.environment import Environment

PACKAGE = "melete.agents.scenarios"
PARTIAL = 0.4
"""Most that the right steps of a task that was not solved are worth."""

State = dict[str, Any]
"""State of an episode, writable as JSON: the world's own, and what `Environment` adds as `goal` and `episode`."""


@dataclass(frozen=True)
class Malformed:
    """A tool call that could not be read, as raw text; it counts as a failed call and changes nothing."""

    text: str


Proposal = ToolAction | Message | Malformed
Policy = Callable[[str], "Proposal | Turn"]
"""Observation to action; a `Turn` of the assistant may hold text and several calls, as a model writes them."""


@dataclass(frozen=True)
class Task:
    """One thing to do, writable as JSON: a scenario builds the same world from it on any machine.

    Attributes:
        id: unique in the scenario.
        scenario: its name.
        split: which split drew it.
        request: what the person says first.
        goal: what the scenario needs to build the world and to tell whether the task was solved.
        seed: of every random draw in the episode.
    """

    id: str
    scenario: str
    split: str
    request: str
    goal: dict[str, Any]
    seed: int


@dataclass(frozen=True)
class Criterion:
    """Something that must be true when the episode is over, told from the state alone."""

    name: str
    description: str
    check: Callable[[State], bool]


@dataclass(frozen=True)
class Prices:
    """What things cost, in reward."""

    call: float = 0.01
    """Each tool call that was executed and answered."""
    failed: float = 0.06
    """Each call that was not: no such tool, wrong arguments, refused, answered by an error."""
    broken: float = 0.3
    """Once, when a policy was broken: a call that the guard had to refuse although it could have been executed."""
    message: float = 0.02
    """Each message to the person."""
    character: float = 0.0003
    """Each character that the agent writes, in messages and calls."""


class World(ABC):
    """One episode's world: `state`, tool methods marked with `@tool`, and the simulated person."""

    state: State

    @abstractmethod
    def opening(self) -> str:
        """The person's first message."""

    @abstractmethod
    def reply(self, text: str) -> str | None:
        """The person's answer to a message of the agent; None when there is nothing more to say."""

    def confirm(self, action: ToolAction) -> bool:
        """Whether the person confirms a call that the guard asked about."""
        return False

    def facts(self) -> Mapping[str, Any]:
        """What the guard may know from the start, such as limits that hold for this task."""
        return {}

    def dispose(self) -> None:  # noqa: B027  most worlds hold nothing
        """Frees what the world holds outside memory."""


class Scenario(ABC):
    """A task family; see the head of this file.

    Attributes:
        name: the file's name.
        version: changes when results can no longer be compared.
        description: one sentence.
        splits: `train` and those that are evaluated.
        reward_range: lowest and highest reward of a step and of an episode.
        max_steps: messages and calls of the agent after which an episode is cut.
        toolset: the tools, distractors included.
        guard: judges every call.
        system_prompt: first turn of every conversation.
        prompt: file that `system_prompt` was rendered from; None where the text stands in the scenario.
        prices: see `Prices`.
        datasets: names of the datasets that it reads, which go along where it is practised on another machine.
    """

    name: str
    version: str = "1"
    description: str
    splits: tuple[str, ...] = ("train", "held_out", "unseen")
    reward_range: tuple[float, float] = (-1.0, 1.0)
    max_steps: int = 12
    toolset: ToolSet
    guard: Guard
    system_prompt: str
    prompt: Prompt | None = None
    prices: Prices = Prices()
    datasets: tuple[str, ...] = ()

    @property
    def prompt_id(self) -> str:
        """`name@version` of the prompt file; empty where the text stands in the scenario."""
        return self.prompt.id if self.prompt else ""

    @abstractmethod
    def tasks(self, split: str, count: int | None = None, start: int = 0, seed: int = 0) -> list[Task]:
        """Tasks `start` to `start + count` of a split, always the same for the same arguments.

        Args:
            split: one of `splits`.
            count: how many; None is all of a finite split.
            start: index of the first.
            seed: another seed is another sequence, where tasks are drawn; data sets have one order.

        Raises:
            ConfigError: no such split, or no count for a split without end.
        """

    @abstractmethod
    def world(self, task: Task) -> World:
        """A fresh world for a task."""

    @abstractmethod
    def success_criteria(self) -> list[Criterion]:
        """What must be true at the end; not all of it is true at the start."""

    @abstractmethod
    def expert(self, task: Task) -> Policy:
        """A scripted policy that solves the task; it may look into `task.goal`."""

    def unavailable(self) -> str | None:
        """Why the scenario cannot be played here, such as data that is not at hand; None if it can."""
        return None

    def require_playable(self) -> None:
        """Nothing, if the scenario can be played here.

        Raises:
            ConfigError: it cannot; see `unavailable`.
        """
        if reason := self.unavailable():
            raise ConfigError(f"The scenario {self.name} cannot be played here: {reason}")

    def progress(self, state: State) -> float:
        """Share of the task's steps that were done right, from 0 to 1."""
        return 0.0

    def success(self, state: State) -> bool:
        """Whether the episode is over, all criteria hold and no policy was broken."""
        episode = state["episode"]
        if not episode["over"] or episode["broken"]:
            return False
        return all(criterion.check(state) for criterion in self._criteria)

    def value(self, state: State) -> float:
        """Worth of a state; 0 at the start. See the head of this file."""
        episode, prices = state["episode"], self.prices
        worth = 1.0 if self.success(state) else PARTIAL * self.progress(state)
        costs: float = (
            prices.call * episode["calls_ok"]
            + prices.failed * (episode["calls"] - episode["calls_ok"])
            + prices.message * episode["messages"]
            + prices.character * episode["characters"]
            + (prices.broken if episode["broken"] else 0.0)
        )
        low, high = self.reward_range
        return max(low, min(high, worth - costs))

    def calculate_reward(self, state: State, action: Proposal, next_state: State) -> float:
        """Reward of one step; the rewards of an episode sum to the value of its last state."""
        return self.value(next_state) - self.value(state)

    def create_environment(
        self,
        task: Task | None = None,
        split: str = "train",
        trace: TraceWriter | None = None,
        run: str = "",
        episode: str = "",
    ) -> Environment:
        """A Gymnasium environment that plays `task`, or at each reset a task drawn from `split`.

        Args:
            task: what `reset` starts when it is given no other task.
            split: drawn from when there is no task.
            trace: every step is written there.
            run: id of the run, for the trace.
            episode: id of the episode, for the trace.
        """
        from melete.agents.environment import Environment

        return Environment(self, task=task, split=split, trace=trace, run=run, episode=episode)

    def mistakes(self, task: Task, expert: Policy, seed: int) -> Policy:
        """The expert as it acts on a bad day, for demonstrations like real logs; by default it makes no mistake."""
        return expert

    def demonstrations(
        self, split: str, count: int, seed: int = 0, error_share: float = 0.0, start: int = 0
    ) -> Iterator[Conversation]:
        """Conversations of the scripted expert, played in the real environment under its guard.

        Args:
            split: which tasks.
            count: how many; a finite split starts again from its first task.
            seed: of the tasks and of the mistakes.
            error_share: share of the conversations in which the expert makes mistakes, as in real logs.
            start: index of the first task.
        """
        for index in range(start, start + count):
            found = self.tasks(split, 1, start=index, seed=seed)
            if not found:
                everything = self.tasks(split, seed=seed)
                found = [everything[index % len(everything)]]
            task = found[0]
            policy = self.expert(task)
            draw = _unit(f"{seed}:{index}")
            if draw < error_share:
                policy = self.mistakes(task, policy, seed * 1_000_003 + index)
            yield play(policy, self.create_environment(task)).conversation()

    @property
    def _criteria(self) -> list[Criterion]:
        found: list[Criterion] | None = self.__dict__.get("_found_criteria")
        if found is None:
            found = self.__dict__["_found_criteria"] = self.success_criteria()
        return found


def play(policy: Policy, environment: Environment) -> Environment:
    """Plays one episode to its end and returns the environment, whose `outcome` and `turns` tell of it."""
    observation, _ = environment.reset()
    over = False
    while not over:
        action = policy(observation)
        if isinstance(action, Turn):
            observation, _, terminated, truncated, _ = environment.act(action)
        else:
            observation, _, terminated, truncated, _ = environment.step(action)
        over = terminated or truncated
    return environment


def copy_state(value: Any) -> Any:
    """A copy of a value made of dicts, lists and scalars; tuples are taken to be fixed and shared."""
    if isinstance(value, dict):
        return {key: copy_state(one) for key, one in value.items()}
    if isinstance(value, list):
        return [copy_state(one) for one in value]
    return value


def folders() -> list[Path]:
    """Folders of the user's own scenarios, nearest first; they need not exist."""
    return [Path.cwd() / "scenarios", settings.load().home / "scenarios"]


def files() -> dict[str, Path]:
    """Every scenario's file by name. A file of the user's own never hides one of ours."""
    found = {
        path.stem: path
        for folder in reversed(folders())
        for path in folder.glob("*.py")
        if not path.name.startswith("_")
    }
    package = find.folder_of(PACKAGE)
    return found | {name: package / f"{name}.py" for name in find.names(PACKAGE)}


def names() -> list[str]:
    """Sorted names of all scenarios; nothing is imported."""
    return sorted(files())


def load(name: str) -> Scenario:
    """A scenario by name; the same instance every time, since it never changes.

    Raises:
        ScenarioNotFoundError: no scenario has that name; the message lists the known ones.
        ScenarioError: its file cannot be imported, or has no class `SCENARIO` that can be made.
    """
    known = files()
    if name not in known:
        raise ScenarioNotFoundError(
            "scenario", name, known, next_step="List them with: melete agents scenarios list"
        )
    return _load(name, known[name])


@lru_cache(maxsize=64)
def _load(name: str, path: Path) -> Scenario:
    try:
        own = path.parent != find.folder_of(PACKAGE)
        module = _import(name, path) if own else find.load(PACKAGE, name, "scenario")
        cls = getattr(module, "SCENARIO", None)
        if not (isinstance(cls, type) and issubclass(cls, Scenario)):
            raise ScenarioError(
                f"{path.name} exports no scenario.", allowed="A class that extends Scenario, named SCENARIO."
            )
        scenario: Scenario = cls()
    except MeleteError:
        raise
    except Exception as error:  # the file is its author's
        raise ScenarioError(
            f"{path.name} cannot be loaded: {type(error).__name__}: {error}.",
            next_step=f"Correct {path}; `melete agents scenarios new` writes one that works.",
        ) from error
    if scenario.name != name:
        raise ScenarioError(
            f"{path.name} holds a scenario named {scenario.name!r}.", allowed="The name of its file."
        )
    return scenario


def _import(name: str, path: Path) -> ModuleType:
    """Imports a file of the user's own under a name that nothing else has."""
    spec = importlib.util.spec_from_file_location(f"melete_scenario_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _unit(seed: str) -> float:
    """A number from 0 to 1 that depends on the text alone."""
    import zlib

    return zlib.crc32(seed.encode()) / 2**32
