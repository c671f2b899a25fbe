"""Rollouts in this process, the embedded default: nothing to start, nothing to reach.

Without an agent the model itself plays, straight through the engine (`rollout.py`); an unchanged agent of any framework
runs in threads and reaches the model by the URL of a server in this process (`agent_player.py`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from melete.actions.trace import TraceWriter
from melete.agents.hub import Episode, Mode, PolicyRef, Setup
from melete.agents.rollout import EnginePlayer, Player, Ticket
from melete.errors import HubError

if TYPE_CHECKING:
    from melete.agents.scenario import Task

STEP_S = 0.05
"""How long a player goes on before the hub looks at the clock."""


class LocalHub:
    """See `melete.agents.hub.Hub`.

    Args:
        player: plays the episodes.
    """

    def __init__(self, player: Player) -> None:
        self._player = player
        self._waiting: deque[Ticket] = deque()
        self._paused = False
        self._closed = False
        self._count = 0

    def publish(self, policy: PolicyRef) -> None:
        """See `Hub.publish`; the weights are already in the engine."""
        self._check()
        self._player.version = policy.version

    def submit(
        self,
        tasks: Sequence[Task],
        *,
        group: str,
        mode: Mode = "train",
        seeds: Sequence[int],
        timeout_s: float | None = None,
    ) -> list[str]:
        """See `Hub.submit`."""
        self._check()
        tickets = [
            Ticket(f"{group}-{self._count + i}", task, group, seed, mode, timeout_s)
            for i, (task, seed) in enumerate(zip(tasks, seeds, strict=True))
        ]
        self._count += len(tickets)
        self._waiting.extend(tickets)
        return [ticket.id for ticket in tickets]

    def completed(self, wait_s: float | None = None) -> list[Episode]:
        """See `Hub.completed`; it is here that the episodes are played."""
        self._check()
        until = None if wait_s is None else time.monotonic() + wait_s
        while not self._paused:
            while self._waiting:
                self._player.begin(self._waiting.popleft())
            ended = self._player.advance(STEP_S)
            if ended or not self._player.active or (until is not None and time.monotonic() >= until):
                return ended
        return []

    def pause(self) -> None:
        """See `Hub.pause`."""
        self._paused = True

    def resume(self) -> None:
        """See `Hub.resume`."""
        self._paused = False

    def close(self) -> None:
        """See `Hub.close`."""
        self._closed = True
        self._waiting.clear()
        self._player.close()

    def _check(self) -> None:
        if self._closed:
            raise HubError("The local hub has been closed.")


def open(setup: Setup) -> LocalHub:
    """A local hub; see `melete.agents.hub.open`."""
    trace = TraceWriter(setup.traces / "rollouts.jsonl") if setup.traces else None
    if setup.agent is not None:
        from melete.agents.agent_player import AgentPlayer

        return LocalHub(AgentPlayer(setup, trace))
    player = EnginePlayer(
        setup.model.lm,
        setup.model.engine,
        setup.scenario,
        temperature=setup.temperature,
        max_tokens=setup.max_tokens,
        trace=trace,
        run=setup.run,
    )
    return LocalHub(player)
