"""Plays a task for a hub that keeps the books elsewhere: agent, environment and relay meet here.

Both Agent Lightning hubs keep queue, policy versions and events in another process and let the agents act in this one,
where the agent was defined and where its guard and its trace are.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from melete import settings
from melete.actions.trace import TraceWriter
from melete.agents import frameworks, player
from melete.agents.environment import Outcome
from melete.agents.hub import Episode, PolicyRef, Setup
from melete.agents.scenario import Task
from melete.serve.models import ServedModel
from melete.serve.recording import Recorder
from melete.serve.server import Server

if TYPE_CHECKING:
    from melete.agents.hubs._relay import Relay

MODEL = "policy"


@dataclasses.dataclass(frozen=True)
class Order:
    """One episode to play, writable as JSON.

    Attributes:
        id: of the episode.
        task: what to try.
        group: tries of one task share it.
        mode: train or val.
        seed: of the episode.
        timeout_s: how long the agent may take; None waits.
    """

    id: str
    task: Task
    group: str
    mode: str
    seed: int
    timeout_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Order:
        """From JSON."""
        return cls(**{**value, "task": Task(**value["task"])})


def orders_of(
    tasks: Sequence[Task], group: str, mode: str, seeds: Sequence[int], timeout_s: float | None
) -> list[Order]:
    """What `Hub.submit` was given as orders, each with an id of its own."""
    return [
        Order(uuid.uuid4().hex, task, group, mode, seed, timeout_s)
        for task, seed in zip(tasks, seeds, strict=True)
    ]


class Playground:
    """Plays orders with one agent, each in the thread that asks.

    Args:
        setup: agent, scenario, and where the traces go.
        relay: the agents' base URL.
    """

    def __init__(self, setup: Setup, relay: Relay) -> None:
        self.relay = relay
        self._scenario = setup.scenario
        self._agent = setup.agent or frameworks.load("openai").default_agent()
        self._trace = TraceWriter(setup.traces / "rollouts.jsonl") if setup.traces else None
        self._run = setup.run

    def close(self) -> None:
        """Ends the relay, and with it what the agents can still say, and closes the trace."""
        self.relay.stop()
        if self._trace is not None:
            self._trace.close()

    def play(self, order: Order, policy: PolicyRef) -> Episode:
        """Plays one; it never raises: what went wrong is in the episode."""
        try:
            trace, run = self._trace, self._run
            env = self._scenario.create_environment(order.task, trace=trace, run=run, episode=order.id)
            return player.play(
                self._agent,
                env,
                dataclasses.replace(policy, endpoint=self.relay.url, api_key=""),
                order.id,
                order.seed,
                order.timeout_s,
                group=order.group,
                recorder=cast(Recorder, self.relay),
            )
        except Exception as error:  # a scenario is its author's: the episode has failed, its siblings go on
            return Episode(
                order.id, order.task, order.group, "failed", error=f"{type(error).__name__}: {error}"
            )


def summary(episode: Episode) -> dict[str, Any]:
    """What of an episode stands in no event of a completion or a reward, as JSON."""
    return {
        "status": episode.status,
        "seconds": episode.seconds,
        "error": episode.error,
        "outcome": dataclasses.asdict(episode.outcome) if episode.outcome else None,
    }


def outcome_of(told: Mapping[str, Any]) -> Outcome | None:
    """The outcome in a summary."""
    return Outcome(**told["outcome"]) if told.get("outcome") else None


class Served:
    """The model that practises behind a URL: a server on a free port of loopback.

    Args:
        setup: the model, and how it is sampled.
    """

    def __init__(self, setup: Setup) -> None:
        self._model = ServedModel(MODEL, setup.model.lm, setup.model.engine)
        self.recorder = Recorder()
        open_to_us = dataclasses.replace(settings.load(), token=None)
        self._server = Server({MODEL: self._model}, open_to_us, recorder=self.recorder)
        self._server.start()
        sampling = {"temperature": setup.temperature, "max_tokens": setup.max_tokens}
        self.policy = PolicyRef(f"{self._server.url}/v1", MODEL, 0, sampling=sampling)

    def published(self, policy: PolicyRef) -> PolicyRef:
        """The policy as it is served; one without an endpoint is the model in this process, with newer weights."""
        if policy.endpoint not in ("", self.policy.endpoint):
            return policy
        self._model.version = policy.version
        sampling = {**self.policy.sampling, **policy.sampling}
        return dataclasses.replace(self.policy, version=policy.version, sampling=sampling)

    def stop(self) -> None:
        """Ends the server."""
        self._server.stop()
