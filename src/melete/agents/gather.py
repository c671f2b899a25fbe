"""Gathers the episodes of each step from a hub, if asked while the weights of the step before are still moving.

A group is one task tried several times; a step takes all tries of its groups. Played ahead, the groups of the next step
are drawn by the weights that the present step started from: they are one version old when they are trained on, and
count with their importance, since the log-probs they were drawn with are kept. An episode of which a part is more than
`max_staleness` versions old is dropped. Which weights draw what depends on nothing but the order of steps, so practice
ahead repeats itself as well.

A hub that dies is opened anew and given again what it had not finished, a few times; then practice ends with its
checkpoint. Limit: what is played ahead is lost when a run is stopped, so a resumed run repeats an unbroken one exactly
only with nothing ahead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

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
        episodes: the finished tries by their place.
    """

    name: str
    index: int
    task: Task
    seeds: tuple[int, ...]
    episodes: dict[int, Episode] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether all tries are finished."""
        return len(self.episodes) == len(self.seeds)

    @property
    def tries(self) -> list[Episode]:
        """The finished tries in order, whatever order they ended in."""
        return [self.episodes[place] for place in sorted(self.episodes)]


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
        max_staleness: versions that an episode may be behind.
        seed: of the episodes.
        timeout_s: how long an episode may take.
        run: is told of a hub that died.
        keep: is given the episodes of each step, too old ones included.
    """

    def __init__(
        self,
        open_hub: Callable[[], Hub],
        tasks: Sequence[Task],
        draws: Draws,
        *,
        size: int,
        count: int,
        max_staleness: int,
        seed: int,
        timeout_s: float | None,
        run: Run,
        keep: Callable[[Sequence[Episode]], None] | None = None,
    ) -> None:
        self._keep = keep
        self._open, self._tasks, self._draws = open_hub, tasks, draws
        self._size, self._count = size, count
        self._max_staleness, self._seed, self._timeout_s, self._run = max_staleness, seed, timeout_s, run
        self._flying: dict[str, Group] = {}
        self._awaited: dict[str, tuple[Group, int]] = {}
        self._policy: PolicyRef | None = None
        self._revived = 0
        self._closing = False
        self._ahead: Future[None] | None = None
        self._threads = torch.get_num_threads()
        self._thread = ThreadPoolExecutor(1, "ahead", initializer=torch.set_num_threads, initargs=(1,))
        self._hub = open_hub()

    def publish(self, policy: PolicyRef, exchange: Callable[[], None]) -> None:
        """Waits for what is played ahead, exchanges the weights, and makes them the policy of all that follows."""
        self._wait()
        self._policy = policy
        try:
            self._hub.pause()
            exchange()
            self._hub.publish(policy)
            self._hub.resume()
        except HubError as error:
            self._revive(error)

    def take(self, step: int, ahead: bool = False) -> Gathered:
        """The groups of a step.

        Args:
            step: its number.
            ahead: whether to play those of the next step meanwhile.

        Raises:
            TrainingFailedError: the hub died too often, or no episode of the step could be played.
        """
        if not self._flying:
            self._submit([self._group(step, index) for index in self._draws.choose(step, self._count)])
            self._collect()
        self._wait()
        groups = list(self._flying.values())
        self._flying = {}
        if self._keep is not None:
            self._keep([episode for group in groups for episode in group.tries])
        if ahead:
            following = self._draws.choose(step + 1, self._count)
            self._submit([self._group(step + 1, index) for index in following])
            self._ahead = self._thread.submit(self._collect)
            # Playing takes a core: an update with a thread on every core would fight with it for one.
            torch.set_num_threads(max(1, self._threads - 1))
        return self._fresh(groups)

    def close(self) -> None:
        """Gives up what is played ahead."""
        self._closing = True
        with contextlib.suppress(HubError, TrainingFailedError):
            self._wait()
            self._hub.close()
        self._thread.shutdown()

    def _wait(self) -> None:
        if self._ahead is not None:
            try:
                self._ahead.result()
            finally:
                self._ahead = None
                torch.set_num_threads(self._threads)

    def _collect(self) -> None:
        """Until every episode in flight has ended."""
        while self._awaited and not self._closing:
            try:
                for episode in self._hub.completed(WAIT_S):
                    if (known := self._awaited.pop(episode.id, None)) is not None:
                        group, place = known
                        group.episodes[place] = episode
            except HubError as error:
                self._revive(error)

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
                self._awaited |= {one: (group, place) for place, one in enumerate(ids)}
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
            old = [place for place, one in group.episodes.items() if one.oldest_version < oldest]
            stale += len(old)
            for place in old:
                del group.episodes[place]
        played = [episode for group in groups for episode in group.tries]
        if played and all(episode.status != "ok" for episode in played):
            raise TrainingFailedError(
                f"None of the {len(played)} episodes of this step could be played; the first one: "
                f"{played[0].status}, {played[0].error}.",
                next_step="Correct the agent or the scenario, then go on with: melete runs resume",
            )
        return Gathered(groups, stale)
