"""Keeps groups of episodes in flight at a hub and hands them over as they are finished.

A group is one task tried several times. With nothing ahead, practice is synchronous: the groups of a step are submitted
when the last update is in use, and the step waits for all of them. With groups ahead, that many are being played while
the weights change; a step takes the groups that are finished first, and an episode of which a part was drawn by weights
more than `max_staleness` versions old is dropped from its group. What is kept counts with its importance: the log-probs
it was drawn with are stored with it.

A hub that dies is opened anew and given again what it had not finished, a few times; then practice ends with its
checkpoint. Limit: what is in flight is lost when a run is stopped, so a resumed run repeats an unbroken one exactly
only with nothing ahead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from melete.agents.hub import Episode, Hub, PolicyRef
from melete.errors import HubError, TrainingFailedError

if TYPE_CHECKING:
    from melete.agents.scenario import Task
    from melete.llm.grpo import Draws
    from melete.runs.run import Run

WAIT_S = 5.0
REVIVALS = 3
"""How often a dead hub is opened anew in one run."""


@dataclass
class Group:
    """Tries of one task.

    Attributes:
        name: unique in the run.
        index: of the task among those that are practised.
        task: what is tried.
        seeds: one per try.
        episodes: the finished tries.
    """

    name: str
    index: int
    task: Task
    seeds: tuple[int, ...]
    episodes: list[Episode] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether all tries are finished."""
        return len(self.episodes) >= len(self.seeds)


@dataclass(frozen=True)
class Gathered:
    """The groups of a step, and how many of their episodes were too old."""

    groups: list[Group]
    stale: int


class Gathering:
    """See the head of this file.

    Args:
        open_hub: opens a hub; called again if it dies.
        tasks: what is practised.
        draws: which tasks to try next.
        size: tries of a task.
        count: groups of a step.
        ahead: further groups in flight.
        max_staleness: versions that an episode may be behind.
        seed: of the episodes.
        timeout_s: how long an episode may take.
        run: is told of a hub that died.
    """

    def __init__(
        self,
        open_hub: Callable[[], Hub],
        tasks: Sequence[Task],
        draws: Draws,
        *,
        size: int,
        count: int,
        ahead: int,
        max_staleness: int,
        seed: int,
        timeout_s: float | None,
        run: Run,
    ) -> None:
        self._open, self._tasks, self._draws = open_hub, tasks, draws
        self._size, self._count, self._ahead = size, count, ahead
        self._max_staleness, self._seed, self._timeout_s, self._run = max_staleness, seed, timeout_s, run
        self._flying: dict[str, Group] = {}
        self._awaited: dict[str, Group] = {}
        self._policy: PolicyRef | None = None
        self._revived = 0
        self._hub = open_hub()

    def publish(self, policy: PolicyRef, exchange: Callable[[], None]) -> None:
        """Pauses the hub, exchanges the weights, and makes them the policy of all turns that follow."""
        self._policy = policy
        try:
            self._hub.pause()
            exchange()
            self._hub.publish(policy)
            self._hub.resume()
        except HubError as error:
            self._revive(error)

    def take(self, step: int) -> Gathered:
        """The groups of a step.

        Raises:
            TrainingFailedError: the hub died too often, or no episode of the step could be played.
        """
        missing = self._count + self._ahead - len(self._flying)
        self._submit([self._group(step, index) for index in self._draws.choose(step, max(0, missing))])
        while len(done := [group for group in self._flying.values() if group.whole]) < min(
            self._count, len(self._flying)
        ):
            try:
                for episode in self._hub.completed(WAIT_S):
                    if (group := self._awaited.pop(episode.id, None)) is not None:
                        group.episodes.append(episode)
            except HubError as error:
                self._revive(error)
        done = done[: self._count]
        for group in done:
            del self._flying[group.name]
        return self._fresh(done)

    def close(self) -> None:
        """Gives up what is in flight."""
        self._hub.close()

    def _group(self, step: int, index: int) -> Group:
        seeds = np.random.default_rng([self._seed, step, index]).integers(0, 2**31, self._size)
        return Group(f"{step}.{index}", index, self._tasks[index], tuple(int(seed) for seed in seeds))

    def _submit(self, groups: Sequence[Group]) -> None:
        for group in groups:
            self._flying[group.name] = group
            group.episodes.clear()
        for group in groups:
            try:
                ids = self._hub.submit(
                    [group.task] * self._size, group=group.name, seeds=group.seeds, timeout_s=self._timeout_s
                )
                self._awaited |= dict.fromkeys(ids, group)
            except HubError as error:
                self._revive(error)
                return

    def _revive(self, error: HubError) -> None:
        """Opens the hub anew and submits again what was not finished."""
        self._revived += 1
        if self._revived > REVIVALS:
            raise TrainingFailedError(
                f"The hub died {self._revived} times; the last time it said: {error}",
                next_step="Look at the hub, then go on with: melete runs resume",
            ) from error
        self._run.say(f"The hub died ({error}); it is opened anew, and unfinished tasks are submitted again.")
        with contextlib.suppress(HubError):  # it is dead already
            self._hub.close()
        self._hub = self._open()
        self._awaited.clear()
        if self._policy is not None:
            self._hub.publish(self._policy)
        self._submit([group for group in self._flying.values() if not group.whole])

    def _fresh(self, groups: list[Group]) -> Gathered:
        oldest = (self._policy.version if self._policy else 0) - self._max_staleness
        stale = 0
        for group in groups:
            kept = [episode for episode in group.episodes if episode.oldest_version >= oldest]
            stale += len(group.episodes) - len(kept)
            group.episodes = kept
        played = [episode for group in groups for episode in group.episodes]
        if played and all(episode.status != "ok" for episode in played):
            raise TrainingFailedError(
                f"None of the {len(played)} episodes of this step could be played; the first one: "
                f"{played[0].status}, {played[0].error}.",
                next_step="Correct the agent or the scenario, then go on with: melete runs resume",
            )
        return Gathered(groups, stale)
