"""Practises a scenario: plays it, rewards it, updates the weights, until tool calls succeed.

Each step takes groups of finished episodes from a hub (`gather.py`), compares the tries of each group with each other
and moves the weights along their advantages (`llm/grpo.py`): a whole episode of many turns is one row in which only
what the model wrote is trained. The reward is the scenario's, less `refusal_cost` for each call that the guard had to
refuse. Groups whose rewards are nearly equal say nothing and are left out; tasks that are sometimes solved are drawn
more often.

The same requests of the splits that practice never sees are played before and after, with the same seeds. With
`--minutes` practice ends when its time is up (evaluations are not counted) and the rates fall along the time; a resumed
run then goes on with the time that is left.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from melete import metrics
from melete import settings as settings_module
from melete.agents import hub as hubs
from melete.agents import scenario as scenarios
from melete.agents.alone import require_one_process
from melete.agents.exam import Exam
from melete.agents.gather import Gathered, Gathering, Group
from melete.agents.hub import Episode, Played, PolicyRef, Setup
from melete.agents.measure import Measured, table
from melete.agents.recorded import Recording
from melete.agents.rollout import WAITING
from melete.errors import ConfigError, TrainingFailedError
from melete.llm import finetune
from melete.llm.config import compute_dtype, resolve_device
from melete.llm.distributed import SINGLE
from melete.llm.engine import Engine
from melete.llm.grpo import Draws, Weighted, improve
from melete.llm.merge import merge
from melete.runs.run import Run

if TYPE_CHECKING:
    from melete.agents.processes.train import Config
    from melete.agents.scenario import Scenario, Task
    from melete.llm.lm import LM

LEAST_SPREAD = 0.05
"""Groups whose rewards differ by less differ in their length only and are left out."""


def train(config: Config, run: Run) -> None:
    """Practises a scenario; see the head of this file."""
    require_one_process("Practice", "A model that needs several GPUs is handed over: melete agents handover.")
    if config.ahead and config.max_staleness < 1:
        raise ConfigError(
            "What is played ahead is one version old, and --max-staleness 0 drops it all.",
            next_step="Use --max-staleness 1 or more, or --no-ahead.",
        )
    settings = settings_module.load()
    scenario = scenarios.load(config.scenario)
    device = resolve_device(config.device)
    start = finetune.begin(
        run, settings, base=config.base, device=device, fraction=config.rate * finetune.RL_FRACTION,
        lora_rank=config.lora_rank,
    )  # fmt: skip
    learner, lm = start.learner, start.learner.lm
    reference = finetune.reference(start, settings, device) if config.kl > 0 else None
    tasks = practice_tasks(scenario, config)
    engine = Engine(lm, slots=config.problems * config.group, waiting=WAITING, dtype=compute_dtype(device))
    model = Played(lm, engine)
    recording = Recording(run, settings, scenario.name, lm.name, config.framework)
    exam = Exam(model, scenario, config, run, recording if config.record != "none" else None)
    run.say(f"{scenario.name}: {len(tasks):,} tasks to practise; starting from {start.source}")

    before = exam.of(start.position.get("before")) or exam.sit(learner, start.step, "before")
    draws = Draws(len(tasks), config.seed, start.position.get("draws"))
    practised_s = float(start.position.get("practised_s", 0.0))
    gathering = Gathering(
        lambda: hubs.open(config.hub, _setup(config, scenario, model, run)), tasks, draws,
        size=config.group, count=config.problems, max_staleness=config.max_staleness, seed=config.seed,
        timeout_s=config.timeout_s or None, run=run,
        keep=(lambda episodes: recording.keep(episodes, "")) if config.record == "all" else None,
    )  # fmt: skip

    def save() -> None:
        learner.save(
            run, stage="practice", step=done,
            data_position={
                "draws": draws.position, "practised_s": practised_s,
                "before": [dataclasses.asdict(row) for row in before],
            },
            config={"started_from": start.source, "scenario": scenario.name},
        )  # fmt: skip

    done = start.step
    try:
        gathering.publish(_policy(lm, done, config), lambda: None)
        for step in run.steps(config.steps, start=start.step):
            began_s = time.perf_counter()
            gathered = gathering.take(step, ahead=config.ahead and step + 1 < config.steps)
            waited_s = time.perf_counter() - began_s
            draws.learn([(group.index, [float(solved(e)) for e in group.tries]) for group in gathered.groups])
            groups = advantages(gathered.groups, config.refusal_cost)
            scale = schedule_of(config, step, practised_s)
            figures = improve(
                learner,
                groups,
                scale,
                updates=config.updates,
                kl=config.kl,
                world=SINGLE,
                reference=reference,
            )
            run.check_finite(step, figures["gradient_norm"], "gradient norm")
            done = step + 1
            gathering.publish(_policy(lm, done, config), lambda: engine.swap(learner.weights()))
            practised_s += time.perf_counter() - began_s
            clock = {"waited_s": waited_s, "practised_s": practised_s}
            if config.minutes:
                clock["left_s"] = max(0.0, 60 * config.minutes - practised_s)
            run.log(step, {**figures, **summary(gathered, len(groups)), **clock})
            over = out_of_time(config, practised_s, time.perf_counter() - began_s)
            if over or run.should_save(step, config.save_every):
                run.sample(step, scenario.name, transcripts(gathered.groups, lm))
                save()
            if over:
                break
    except TrainingFailedError as error:
        if done > start.step:
            save()
        raise with_checkpoint(error, run) from error
    finally:
        gathering.close()
        recording.flush()
    after = exam.sit(learner, done, "after")
    report(run, scenario, before, after, practised_s, done - start.step)


def with_checkpoint(error: TrainingFailedError, run: Run) -> TrainingFailedError:
    """The error, with what was kept of the practice before it."""
    kept = run.latest_checkpoint()
    return TrainingFailedError(
        error.found,
        allowed=f"What was practised before is kept in {kept.name}."
        if kept
        else "No step was done before it.",
        next_step=error.next_step,
    )


def practice_tasks(scenario: Scenario, config: Config) -> list[Task]:
    """The tasks of the train split that are practised.

    Raises:
        ConfigError: the scenario cannot be played here, or has no task to practise.
    """
    scenario.require_playable()
    if "train" not in scenario.splits:
        raise ConfigError(
            f"{scenario.name} has no split to practise on.", allowed=f"It has: {scenario.splits}."
        )
    return scenario.tasks("train", config.pool, seed=config.seed)


def solved(episode: Episode) -> bool:
    """Whether an episode did what was asked for."""
    return episode.status == "ok" and episode.outcome is not None and episode.outcome.success


def shaped(episode: Episode, refusal_cost: float) -> float:
    """The reward that is trained on."""
    refused = episode.outcome.refused if episode.outcome else 0
    return episode.reward - refusal_cost * refused


def advantages(groups: Sequence[Group], refusal_cost: float) -> list[list[Weighted]]:
    """Rows with their advantages, group by group; groups that say nothing are left out."""
    found = []
    for group in groups:
        rewards = [shaped(episode, refusal_cost) for episode in group.tries]
        if len(rewards) < 2 or max(rewards) - min(rewards) < LEAST_SPREAD:
            continue
        mean = sum(rewards) / len(rewards)
        found.append(
            [
                (row, reward - mean)
                for episode, reward in zip(group.tries, rewards, strict=True)
                for row in merge((m.prompt_ids, m.response_ids, m.logprobs) for m in episode.moves)
            ]
        )
    return found


def summary(gathered: Gathered, mixed: int) -> dict[str, float]:
    """Figures of a step."""
    episodes = [episode for group in gathered.groups for episode in group.tries]
    outcomes = [episode.outcome for episode in episodes if episode.outcome is not None]
    right = [[solved(episode) for episode in group.tries] for group in gathered.groups if group.tries]
    calls = sum(outcome.tool_calls for outcome in outcomes)
    return {
        "reward": float(np.mean([episode.reward for episode in episodes])),
        "tool_reliability": sum(outcome.tool_calls_ok for outcome in outcomes) / max(1, calls),
        "success": float(np.mean([solved(episode) for episode in episodes])),
        "tokens_per_task": float(np.mean([episode.tokens for episode in episodes])),
        "calls_per_task": calls / max(1, len(episodes)),
        "refused": float(sum(outcome.refused for outcome in outcomes)),
        "folded": float(sum(episode.folded for episode in episodes)),
        "failed": float(sum(episode.status != "ok" for episode in episodes)),
        "stale": float(gathered.stale),
        "groups_all_right": float(np.mean([all(group) for group in right])),
        "groups_all_wrong": float(np.mean([not any(group) for group in right])),
        "groups_trained": float(mixed),
    }


def schedule_of(config: Config, step: int, practised_s: float) -> float:
    """Factor of the rates: up over a few steps, flat, and down to a tenth over the last part of steps or time."""
    done = step / config.steps
    if config.minutes:
        done = max(done, practised_s / (60 * config.minutes))
    up = (step + 1) / 3
    down = (1 - done) / config.decay if config.decay else 1.0
    return max(0.1, min(1.0, up, down)) if step >= 3 else min(1.0, up)


def out_of_time(config: Config, practised_s: float, step_s: float) -> bool:
    """Whether another step like the last one would not end within `--minutes`."""
    return bool(config.minutes) and practised_s + step_s > 60 * config.minutes


def transcripts(groups: Sequence[Group], lm: LM, most: int = 4) -> str:
    """The first episodes of a step as text, for people."""
    shown = [group.tries[0] for group in groups if group.tries][:most]
    return "\n\n".join(transcript(episode, lm) for episode in shown)


def transcript(episode: Episode, lm: LM) -> str:
    """An episode as the model saw and wrote it, and what came of it."""
    head = f"task {episode.task.id}: {episode.task.request}"
    if not episode.moves:
        return f"{head}\n({episode.status}: {episode.error})"
    first, last = episode.moves[0], episode.moves[-1]
    whole = lm.decode([*last.prompt_ids, *last.response_ids])
    start = lm.decode(list(first.prompt_ids))
    outcome = episode.outcome
    came = f"reward {episode.reward:.3f}" + (
        f", {outcome.tool_calls_ok} of {outcome.tool_calls} calls succeeded, "
        f"{'solved' if outcome.success else 'not solved'}"
        if outcome
        else ""
    )
    return f"{head}\n{whole.removeprefix(start)}\n{came}"


def report(
    run: Run,
    scenario: Scenario,
    before: Sequence[Measured],
    after: Sequence[Measured],
    practised_s: float,
    steps: int,
) -> None:
    """Says and keeps what practice changed, on the same requests before and after."""
    rows = [("before", row) for row in before] + [("after", row) for row in after]
    for line in table(rows):
        run.say(line)
    run.result["before"] = [row.to_dict() for row in before]
    run.result["after"] = [row.to_dict() for row in after]
    run.result["practised_s"] = round(practised_s, 1)
    run.result["scenario"] = f"{scenario.name} {scenario.version}"
    run.result["prompt"] = scenario.prompt_id
    pairs = [
        (old, new)
        for old in before
        for new in after
        if (old.split, old.decoding) == (new.split, new.decoding)
    ]
    for old, new in pairs:
        if old.decoding != "free":
            continue
        change = metrics.compare_pairs(old.solved, new.solved)
        run.result[f"difference_{old.split}"] = dataclasses.asdict(change)
        saved = _saved(old, new)
        run.say(f"{old.split}, task success: {change.sentence}{saved}")
    run.say(f"practice: {practised_s:.0f} s in {steps:,} steps")


def _saved(old: Measured, new: Measured) -> str:
    if not old.tokens_per_solved or not new.tokens_per_solved:
        return ""
    share = 1 - new.tokens_per_solved / old.tokens_per_solved
    return f" Tokens per solved task: {abs(share):.0%} {'fewer' if share >= 0 else 'more'}."


def _policy(lm: LM, version: int, config: Config) -> PolicyRef:
    return PolicyRef("", lm.name, version, sampling={"temperature": 1.0, "max_tokens": config.max_tokens})


def _setup(config: Config, scenario: Scenario, model: Played, run: Run) -> Setup:
    agent = None
    if config.framework or config.agent:
        from melete.agents import frameworks

        agent = frameworks.agent(config.framework or "openai", config.agent)
    return Setup(
        scenario, model, agent, temperature=1.0, max_tokens=config.max_tokens,
        workers=config.workers, traces=run.folder / "traces" if run.folder else None, run=run.id,
    )  # fmt: skip
