"""What training needs of whatever runs the agents: publish a policy, submit tasks, collect finished episodes.

A hub is a file in `agents/hubs/` with a class `Hub`; training does not know which one it talks to. An episode comes
back as it was sampled: for every completion the prompt's token ids, the drawn ids, the log-probabilities they were
drawn with and the version of the weights, so that training sees exactly the tokens that were drawn, and the reward of
the whole. A failed episode is a result with its error; its siblings go on.

Limits: a hub keeps nothing when it ends. What was submitted and not collected is submitted again by the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from melete import find

if TYPE_CHECKING:
    from melete.agents.environment import Outcome
    from melete.agents.player import Agent
    from melete.agents.scenario import Scenario, Task
    from melete.llm.engine import Engine
    from melete.llm.lm import LM

PACKAGE = "melete.agents.hubs"

EpisodeStatus = Literal["ok", "failed", "timeout"]
Mode = Literal["train", "val"]


@dataclass(frozen=True)
class PolicyRef:
    """Where the policy of a rollout answers, and how it is sampled.

    Attributes:
        endpoint: base URL of an OpenAI-compatible server, ending in `/v1`; empty for a policy in this process.
        model: the model's name there.
        version: counts the weights that were published; 0 is the model that training started from.
        api_key: bearer key; never logged.
        sampling: `temperature`, `max_tokens` and other options of a completion.
    """

    endpoint: str
    model: str
    version: int
    api_key: str = field(default="", repr=False)
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """One completion as it was drawn.

    Attributes:
        prompt_ids: token ids that the model was given.
        response_ids: token ids that it drew, the stop token included.
        logprobs: natural-log probability of each drawn id, of the model's own distribution at temperature 1.
        policy_version: `PolicyRef.version` of the weights that drew it.
        finish: why it ended: stop, length, cancelled or error.
        begun_s: when it was asked for, in seconds since the epoch; 0 where the hub does not tell.
        first_s: when its first token came.
        ended_s: when it ended.
        cached: tokens of the prompt that were not computed again.
        calls: tool calls that it holds.
    """

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    logprobs: Sequence[float]
    policy_version: int = 0
    finish: str = "stop"
    begun_s: float = field(default=0.0, compare=False)
    first_s: float = field(default=0.0, compare=False)
    ended_s: float = field(default=0.0, compare=False)
    cached: int = field(default=0, compare=False)
    calls: int = 0


@dataclass(frozen=True)
class Episode:
    """One finished rollout of one task.

    Attributes:
        id: as `Hub.submit` returned it.
        task: what was tried.
        group: tries of one task that are compared with each other share it.
        status: ok; failed (the agent or a tool of it raised); timeout.
        moves: completions in order.
        reward: of the whole episode, in the scenario's reward range; its lowest value if it failed.
        outcome: what the environment counted; None if it never started.
        error: why it failed.
        seconds: wall time.
        folded: turns that were no longer whole in the last prompt, see `llm/folding.py`.
    """

    id: str
    task: Task
    group: str
    status: EpisodeStatus
    moves: tuple[Move, ...] = ()
    reward: float = 0.0
    outcome: Outcome | None = None
    error: str | None = None
    seconds: float = 0.0
    folded: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that the policy wrote."""
        return sum(len(move.response_ids) for move in self.moves)

    @property
    def oldest_version(self) -> int:
        """The oldest policy version that wrote a part of it."""
        return min((move.policy_version for move in self.moves), default=0)


class Hub(Protocol):
    """Runs agents on tasks; every method raises `HubError` once the hub is dead."""

    def publish(self, policy: PolicyRef) -> None:
        """Makes a policy the one that episodes use from their next completion on."""
        ...

    def submit(
        self,
        tasks: Sequence[Task],
        *,
        group: str,
        mode: Mode = "train",
        seeds: Sequence[int],
        timeout_s: float | None = None,
    ) -> list[str]:
        """Queues one episode per task and returns their ids in order.

        Args:
            tasks: a group repeats its task.
            group: name that the episodes carry.
            mode: what the episodes are for.
            seeds: one per task; a seed and the weights decide an episode.
            timeout_s: an episode that takes longer ends with status `timeout`; None waits.
        """
        ...

    def completed(self, wait_s: float | None = None) -> list[Episode]:
        """Episodes that ended since the last call; waits up to `wait_s` for the first (None: until there is one)."""
        ...

    def pause(self) -> None:
        """Starts no further episode or turn until `resume`, so that weights can be exchanged."""
        ...

    def resume(self) -> None:
        """Goes on after `pause`."""
        ...

    def close(self) -> None:
        """Ends the hub; what runs is given up."""
        ...


@dataclass(frozen=True)
class Setup:
    """What a hub is made from; `open(setup)` of a hub's file returns its hub.

    Attributes:
        scenario: what is played.
        model: the model as an engine that nobody else steps, with its chat format; a hub that reaches the policy by
            URL serves it.
        agent: an unchanged agent that practises; None plays the model itself.
        temperature: of all completions.
        max_tokens: most tokens of one turn.
        workers: agents that run at once.
        traces: folder for the traces.
        run: id of the run.
    """

    scenario: Scenario
    model: Played
    agent: Agent | None = None
    temperature: float = 1.0
    max_tokens: int = 128
    workers: int = 16
    traces: Path | None = None
    run: str = ""


@dataclass(frozen=True)
class Played:
    """A model and the engine that holds its newest weights."""

    lm: LM
    engine: Engine


def open(name: str, setup: Setup) -> Hub:
    """Opens a hub by the name of its file.

    Raises:
        UnknownNameError: no hub has that name.
        HubError: it cannot be started.
    """
    hub: Hub = find.load(PACKAGE, name, "hub").open(setup)
    return hub


def require(name: str) -> None:
    """Nothing, if there is such a hub and what it runs in; asked before anything takes time.

    Raises:
        UnknownNameError: no hub has that name.
        HubError: the environment of its own has not been made.
    """
    environment = getattr(find.load(PACKAGE, name, "hub"), "ENVIRONMENT", None)
    if environment is not None:
        from melete.agents.hubs._child import python_of

        python_of(environment)
