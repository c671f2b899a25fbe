"""What a hub costs: rollouts a second, and CPU a rollout, with a model that answers at once.

One rollout is two completions, one tool call behind the guard, and a reward. The same tasks are played through each
way: the engine itself (`local`, no agent), an unchanged agent of the `openai` client by URL (`local`), and the same
agent through Agent Lightning 0.3.0 and 1.x, whose processes run from environments of their own and are left out where
those have not been made. CPU is that of this process and of the hub's own process, all threads; the agents, the
environment and the server in front of the model are part of it, since each hub needs them. The model's own share is
measured alone and shown beside it. Rollouts a second are wall time of this machine, whatever else it is doing.

    python benchmarks/hub_rollouts.py [--rollouts 200] [--rounds 5] [--workers 16]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import psutil

from melete.actions.guard import Guard
from melete.actions.tools import ToolSet, tool
from melete.agents import frameworks
from melete.agents import hub as hubs
from melete.agents.hub import Hub, Played, Setup
from melete.agents.scenario import Criterion, Policy, Scenario, Task, World
from melete.errors import HubError
from melete.llm.engine import Sampling
from melete.serve import echo
from peer import save_result, system

LINE = 'call look {"ticket":"T1"}'
"""What the person says; the echo model makes the call of it."""


class DeskWorld(World):
    """One ticket."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"looked": False}

    def opening(self) -> str:
        """See `World`."""
        return LINE

    def reply(self, text: str) -> str | None:
        """See `World`."""
        return None

    @tool
    def look(self, ticket: str) -> str:
        """Looks at a ticket.

        Args:
            ticket: Its id.
        """
        self.state["looked"] = True
        return f"{ticket} is open"


class Desk(Scenario):
    """A desk with one ticket to look at."""

    name = "desk"
    description = "Look at the ticket that the person names."
    toolset = ToolSet.of(DeskWorld)
    guard = Guard.from_dict({"name": "desk", "version": "1", "rules": [{"allow_list": {"tools": ["look"]}}]})
    system_prompt = "You work at a desk."

    def tasks(self, split: str, count: int | None = None, start: int = 0, seed: int = 0) -> list[Task]:
        """See `Scenario`."""
        return [Task(str(i), self.name, split, LINE, {}, i) for i in range(start, start + (count or 1))]

    def world(self, task: Task) -> World:
        """See `Scenario`."""
        return DeskWorld()

    def success_criteria(self) -> list[Criterion]:
        """See `Scenario`."""
        return [Criterion("looked", "The ticket was looked at.", lambda state: state["looked"])]

    def expert(self, task: Task) -> Policy:
        """See `Scenario`."""
        raise NotImplementedError


class InstantEngine(echo.EchoEngine):
    """The echo engine, which writes a whole answer in one step."""

    def step(self) -> bool:
        """Answers what waits, in the caller's thread."""
        with self._changed:
            rows, self._waiting = self._waiting, []
        for row in rows:
            self._step(row)
        return False

    def _step(self, row: Any) -> bool:
        while not super()._step(row):
            pass
        return True


def setup(workers: int, *, agent: bool) -> Setup:
    """The desk on a fresh instant model."""
    lm = echo.load()
    engine = InstantEngine(lm, slots=256, waiting=4096)
    player = frameworks.load("openai").default_agent() if agent else None
    return Setup(Desk(), Played(lm, cast(Any, engine)), player, max_tokens=64, workers=workers)


def cpu_s(child: psutil.Process | None) -> float:
    """CPU seconds of this process and of a hub's own."""
    own = time.process_time()
    return own if child is None else own + sum(child.cpu_times()[:2])


def play(hub: Hub, rollouts: int, seed: int) -> None:
    """Plays one round and checks that every rollout is what it should be."""
    tasks = Desk().tasks("train", rollouts)
    hub.submit(tasks, group="g", seeds=range(seed, seed + rollouts))
    done = 0
    while done < rollouts:
        episodes = hub.completed(60.0)
        assert episodes, f"only {done} of {rollouts} rollouts came"
        for episode in episodes:
            assert episode.outcome is not None
            assert episode.outcome.success
            assert len(episode.moves) == 2
        done += len(episodes)


def measure(open_hub: Callable[[], Hub], rollouts: int, rounds: int) -> dict[str, Any]:
    """Medians over the rounds, after one that is not counted."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    hub = open_hub()
    pid = getattr(getattr(hub, "_child", None), "pid", None)
    child = psutil.Process(pid) if pid else None
    start = {"wall": time.perf_counter() - began_s, "cpu": cpu_s(child) - began_cpu_s}
    rows = []
    for round_ in range(rounds + 1):
        wall, cpu = time.perf_counter(), cpu_s(child)
        play(hub, rollouts, seed=round_ * rollouts)
        rows.append(
            ((time.perf_counter() - wall) / rollouts, (cpu_s(child) - cpu) / rollouts, memory_mb(child))
        )
    hub.close()
    walls, cpus, memory = zip(*rows[1:], strict=True)
    return {
        "rollouts_per_s": round(statistics.median(1 / wall for wall in walls), 1),
        "cpu_ms_per_rollout": round(1000 * statistics.median(cpus), 2),
        "cpu_ms_per_rollout_rounds": [round(1000 * cpu, 2) for cpu in cpus],
        "start_s": round(start["wall"], 2),
        "start_cpu_s": round(start["cpu"], 2),
        "memory_of_own_process_mb": round(statistics.median(memory)),
    }


def memory_mb(child: psutil.Process | None) -> float:
    """Resident memory of a hub's own process; 0 if it has none."""
    return child.memory_info().rss / 1e6 if child else 0.0


def model_alone(rollouts: int) -> float:
    """CPU milliseconds that the model itself takes for the two completions of a rollout."""
    lm = echo.load()
    engine = InstantEngine(lm, waiting=4 * rollouts)
    prompts = [lm.tokenizer.encode(f"{Desk.system_prompt} {LINE}"), lm.tokenizer.encode("T1 is open")]
    began_s = time.process_time()
    for _ in range(rollouts):
        for prompt in prompts:
            engine.submit(prompt, Sampling(max_tokens=64))
        engine.step()
    return round(1000 * (time.process_time() - began_s) / rollouts, 3)


def main() -> None:
    """Measures each hub and keeps the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rollouts", type=int, default=200, help="rollouts of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after the warm-up")
    parser.add_argument("--workers", type=int, default=16, help="agents that run at once")
    options = parser.parse_args()
    ways = {
        "local, the model itself": ("local", False),
        "local, an openai agent": ("local", True),
        "agentlightning03, an openai agent": ("agentlightning03", True),
        "agentlightning, an openai agent": ("agentlightning", True),
    }
    measured: dict[str, Any] = {}
    for title, (name, agent) in ways.items():
        try:
            measured[title] = measure(
                lambda name=name, agent=agent: hubs.open(name, setup(options.workers, agent=agent)),  # type: ignore[misc]
                options.rollouts,
                options.rounds,
            )
        except HubError as error:
            measured[title] = {"left_out": error.found}
    result = {
        **system(),
        "rollouts_a_round": options.rollouts,
        "rounds": options.rounds,
        "workers": options.workers,
        "completions_a_rollout": 2,
        "model_alone_cpu_ms_per_rollout": model_alone(options.rollouts),
        "hubs": measured,
    }
    save_result("hub_rollouts", result)


if __name__ == "__main__":
    main()
