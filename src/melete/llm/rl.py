"""Reinforcement learning with a checkable reward: group-relative policy gradient (GRPO, arXiv:2402.03300).

Each step draws problems, lets the model try each one `group` times through the engine, and learns from what the better
tries of a group have over its worse ones: see `grpo.py`. Problems that are sometimes solved are drawn more often than
those always or never solved. The same held-out problems are tried before and after, drawn as in training, and the
difference is reported with its interval.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from melete import metrics
from melete import settings as settings_module
from melete.errors import ConfigError
from melete.llm import finetune, rewards
from melete.llm.config import resolve_device
from melete.llm.distributed import World, join
from melete.llm.engine import Engine
from melete.llm.grpo import Draws, Losses, improve
from melete.llm.learner import Learner, schedule
from melete.llm.lm import LM
from melete.llm.merge import merge
from melete.llm.rewards import Problem, RewardTask
from melete.llm.rollout import Episode, fitting, rollouts, transcript
from melete.records import Score
from melete.runs.run import Run

if TYPE_CHECKING:
    from melete.llm.processes.rl import Config

VAL_TRIES = 4
"""Tries of each held-out problem."""


@dataclass(frozen=True)
class Trial:
    """A group's problem and its tries."""

    index: int
    episodes: list[Episode]

    @property
    def rewards(self) -> list[float]:
        """Rewards of the tries."""
        return [episode.reward for episode in self.episodes]

    @property
    def mixed(self) -> bool:
        """Whether the rewards differ, so that there is something to learn."""
        return max(self.rewards) > min(self.rewards)


def train(config: Config, run: Run) -> None:
    """Practises a task; see the head of this file."""
    settings = settings_module.load()
    world, device = join(resolve_device(config.device))
    start = finetune.begin(
        run, settings, base=config.base, device=device, fraction=config.rate * finetune.RL_FRACTION,
        lora_rank=config.lora_rank, world=world,
    )  # fmt: skip
    learner, lm = start.learner, start.learner.lm
    reference = finetune.reference(start, settings, device) if config.kl > 0 else None
    task = rewards.load(config.task, settings)
    problems = _problems(task, "train", lm, config, run)
    held_out = _problems(task, "val", lm, config, run)[: config.val_problems]
    engine = Engine(lm, slots=min(config.slots, max(config.problems * config.group, len(held_out))))
    run.say(
        f"{config.task}: {len(problems):,} problems, {len(held_out)} held out; starting from {start.source}"
    )

    draws = Draws(len(problems), config.seed, start.position.get("draws"))
    before: list[float] = start.position.get("before") or test(
        engine, lm, task, held_out, config, run, start.step
    )
    for step in run.steps(config.steps, start=start.step):
        began_s = time.perf_counter()
        chosen = draws.choose(step, config.problems)
        mine = chosen[world.rank :: world.size]
        trials = _try(engine, lm, task, problems, mine, config, (config.seed, step, world.rank))
        sampled_s = time.perf_counter() - began_s
        outcomes = _everyone(world, [(trial.index, trial.rewards, _lengths(trial)) for trial in trials])
        draws.learn([(index, results) for index, results, _ in outcomes])
        scale = schedule(step, config.steps, warmup=min(5, config.steps // 10))
        figures = update(learner, trials, scale, config, world, reference)
        run.check_finite(step, figures["gradient_norm"], "gradient norm")
        engine.swap(learner.weights())
        figures |= summary([results for _, results, _ in outcomes], [n for *_, ns in outcomes for n in ns])
        tokens_per_s = sum(n for *_, ns in outcomes for n in ns) / max(sampled_s, 1e-9)
        run.log(step, {**figures, "seconds": time.perf_counter() - began_s, "tokens_per_s": tokens_per_s})
        if run.should_save(step, config.save_every):
            run.sample(step, config.task, "\n\n".join(transcript(trial.episodes[0]) for trial in trials[:3]))
            learner.save(
                run, stage="rl", step=step + 1, data_position={"draws": draws.position, "before": before},
                config={"started_from": start.source, "task": config.task},
            )  # fmt: skip
    after = test(engine, lm, task, held_out, config, run, config.steps)
    report(run, config.task, before, after)
    world.close()


def update(
    learner: Learner,
    trials: Sequence[Trial],
    scale: float,
    config: Config,
    world: World,
    reference: Losses | None = None,
) -> dict[str, float]:
    """Moves the weights along the advantages of the groups that have any; see `grpo.improve`."""
    groups = [
        [
            (row, episode.reward - sum(trial.rewards) / len(trial.rewards))
            for episode in trial.episodes
            for row in merge((move.prompt, move.tokens, move.logprobs) for move in episode.moves)
        ]
        for trial in trials
        if trial.mixed
    ]
    return improve(
        learner, groups, scale, updates=config.updates, kl=config.kl, world=world, reference=reference
    )


def summary(results: Sequence[Sequence[float]], lengths: Sequence[int]) -> dict[str, float]:
    """Figures of a step from the rewards of its groups and the lengths of its episodes in tokens."""
    solved = [[float(reward >= 1.0) for reward in group] for group in results]
    counts = np.array([len(group) for group in solved])
    k = int(counts.min())
    right = np.array([sum(group) for group in solved])
    return {
        "reward": float(np.mean([reward for group in results for reward in group])),
        "solved": float(right.sum() / counts.sum()),
        f"pass_at_{k}": float(metrics.pass_at_k(counts, right, k).mean()),
        "groups_all_right": float((right == counts).mean()),
        "groups_all_wrong": float((right == 0).mean()),
        "groups_skipped": float(np.mean([max(group) == min(group) for group in results])),
        "response_tokens": float(np.mean(lengths)),
    }


def test(
    engine: Engine, lm: LM, task: RewardTask, problems: list[Problem], config: Config, run: Run, step: int
) -> list[float]:
    """Share of tries that solve each held-out problem, drawn as in training: it is that policy that is trained."""
    asked = [problem for problem in problems for _ in range(VAL_TRIES)]
    with run.timed("testing on held-out problems"):
        episodes = rollouts(
            engine, lm, task, asked, max_tokens=config.max_tokens, temperature=1.0, seed=(config.seed,)
        )
    solved = np.array([episode.reward >= 1.0 for episode in episodes], dtype=float).reshape(-1, VAL_TRIES)
    rate = metrics.mean(solved.mean(1))
    run.say(
        f"held out, step {step}: {rate.value:.1%} solved ({rate.low:.1%} to {rate.high:.1%}; {rate.count} problems, "
        f"{VAL_TRIES} tries each)"
    )
    run.sample(
        step, f"{config.task}_held_out", "\n\n".join(map(transcript, episodes[: 4 * VAL_TRIES : VAL_TRIES]))
    )
    shares: list[float] = solved.mean(1).tolist()
    return shares


def report(run: Run, task: str, before: Sequence[float], after: Sequence[float]) -> None:
    """Says and keeps what changed on the held-out problems."""
    for name, shares in (("before", before), ("after", after)):
        rate = metrics.mean(shares)
        note = f"held out, {VAL_TRIES} tries each at temperature 1"
        run.result[name] = dataclasses.asdict(
            Score(f"{task}/{name}", rate.value, rate.count, rate.low, rate.high, note)
        )
    change = metrics.compare_pairs(before, after)
    run.result["difference"] = dataclasses.asdict(change)
    run.say(change.sentence)


def _problems(task: RewardTask, split: str, lm: LM, config: Config, run: Run) -> list[Problem]:
    every = task.problems(split)
    kept = fitting(lm, every, config.max_tokens)
    if len(kept) < len(every):
        run.say(
            f"{config.task}: {len(every) - len(kept):,} of {len(every):,} {split} problems do not fit the context"
        )
    if not kept:
        raise ConfigError(
            f"No {split} problem of {config.task} leaves room for {config.max_tokens} tokens of answer in a context "
            f"of {lm.context:,}.",
            next_step="Use a smaller --max-tokens, or a model with a longer context.",
        )
    return kept


def _try(
    engine: Engine,
    lm: LM,
    task: RewardTask,
    problems: Sequence[Problem],
    chosen: Sequence[int],
    config: Config,
    seed: tuple[int, ...],
) -> list[Trial]:
    asked = [problems[i] for i in chosen for _ in range(config.group)]
    episodes = rollouts(engine, lm, task, asked, max_tokens=config.max_tokens, temperature=1.0, seed=seed)
    return [
        Trial(index, episodes[i * config.group : (i + 1) * config.group]) for i, index in enumerate(chosen)
    ]


def _lengths(trial: Trial) -> list[int]:
    return [episode.length for episode in trial.episodes]


def _everyone(world: World, items: list[Any]) -> list[Any]:
    """The items of all ranks, on every rank."""
    if world.size == 1:
        return items
    gathered: list[list[Any]] = [[] for _ in range(world.size)]
    torch.distributed.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]
