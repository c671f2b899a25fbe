"""A run of practice whose episodes were really played by the scripted expert: on bad days, then on good ones.

No model is needed: the scenario's own environment, guard, criteria and trace make the episodes, and the figures of the
run's result are counted from them as `agents.measure` counts them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from melete import metrics
from melete.actions.trace import TraceWriter
from melete.agents import scenario as scenarios
from melete.agents.scenario import Scenario, Task, play
from melete.jobs.execute import Options, execute
from melete.runs.run import Run
from melete.settings import Settings

SCENARIO = "customer_support"
TASKS = 12
SPLITS = ("held_out", "unseen")


def fill_practice(settings: Settings, tasks: int = TASKS, name: str = "practice") -> str:
    """Plays the same tasks before and after, and some of practice between; returns the run's id."""

    def played(config: Any, run: Run) -> None:
        scenario = scenarios.load(SCENARIO)
        solved: dict[tuple[str, str], list[int]] = {}
        for phase, bad in (("before", True), ("after", False)):
            rows = []
            for split in SPLITS:
                row, solved[phase, split] = _exam(run, scenario, split, phase, tasks, bad)
                rows.append(row)
            run.result[phase] = rows
        _practice(run, scenario)
        for split in SPLITS:
            change = metrics.compare_pairs(solved["before", split], solved["after", split])
            run.result[f"difference_{split}"] = asdict(change)
        run.result |= {"practised_s": 1.5, "scenario": SCENARIO, "prompt": scenario.prompt_id}

    options = Options(settings, name=name, carry_out=played)
    return execute("agents.train", {"scenario": SCENARIO, "base": "someone/model"}, options).id


def _exam(
    run: Run, scenario: Scenario, split: str, phase: str, count: int, bad: bool
) -> tuple[dict[str, Any], list[int]]:
    assert run.folder is not None
    solved, calls, good, broken = [], [], [], 0
    with TraceWriter(run.folder / "traces" / f"{phase}-{split}.jsonl") as trace:
        for place, task in enumerate(scenario.tasks(split, count)):
            outcome = _play(scenario, task, trace, run.id, f"{split}-{place}", bad, place)
            solved.append(int(outcome.success))
            calls.append(outcome.tool_calls)
            good.append(outcome.tool_calls_ok)
            broken += outcome.policy_broken
    reliability, success = metrics.cluster_rate(good, calls), metrics.success_rate(sum(solved), len(solved))
    row = {
        "split": split, "decoding": "free", "seed": 20_000, "tasks": count, "tool_calls": sum(calls),
        "tool_calls_ok": sum(good), "reliability": [reliability.value, reliability.low, reliability.high],
        "success": [success.value, success.low, success.high], "policies_broken": broken, "failed": 0,
        "tokens": None, "prompt_tokens": None, "tokens_per_solved": None, "calls_per_task": sum(calls) / count,
    }  # fmt: skip
    return row, solved


def _practice(run: Run, scenario: Scenario) -> None:
    """Two steps of two tries of three tasks, in the names that a hub gives them."""
    assert run.folder is not None
    tasks, number = scenario.tasks("train", 3), 0
    with TraceWriter(run.folder / "traces" / "rollouts.jsonl") as trace:
        for step in range(2):
            right = []
            for index, task in enumerate(tasks):
                for _ in range(2):
                    outcome = _play(
                        scenario, task, trace, run.id, f"{step}.{index}-{number}", step == 0, number
                    )
                    right.append(outcome.success)
                    number += 1
            run.log(
                step,
                {"success": sum(right) / len(right), "tool_reliability": 0.5 + 0.4 * step, "reward": 0.1},
            )


def _play(
    scenario: Scenario, task: Task, trace: TraceWriter, run: str, episode: str, bad: bool, seed: int
) -> Any:
    env = scenario.create_environment(task, trace=trace, run=run, episode=episode)
    expert = scenario.expert(task)
    return play(scenario.mistakes(task, expert, seed) if bad else expert, env).outcome
