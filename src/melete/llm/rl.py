"""Reinforcement learning with a checkable reward: group-relative policy gradient (GRPO, arXiv:2402.03300).

Each step draws problems, lets the model try each one `group` times through the engine, and compares the tries of a
group with each other: advantage = reward - mean of the group, not divided by its spread, so that nearly solved and
nearly hopeless problems are not blown up (Dr. GRPO, arXiv:2503.20783). The loss is averaged over the tokens of the
step (DAPO, arXiv:2503.14476) and its ratio to the log-probs that the engine drew with is clipped, upwards a little
later than downwards (the same). A KL penalty to the starting model is an option (k3, Schulman 2020).

A group whose rewards are all equal has no advantage: it is left out of the batch, and a step that has nothing else
moves nothing. Problems that are sometimes solved are drawn more often than those always or never solved. The same
held-out problems are tried before and after, drawn as in training, and the difference is reported with its interval.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from melete import metrics
from melete import settings as settings_module
from melete.errors import ConfigError
from melete.llm import finetune, rewards
from melete.llm.config import resolve_device
from melete.llm.distributed import World, join
from melete.llm.engine import Engine
from melete.llm.learner import Learner, schedule
from melete.llm.lm import LM
from melete.llm.loss import IGNORE
from melete.llm.rewards import Problem, RewardTask
from melete.llm.rollout import Episode, Move, fitting, rollouts, transcript
from melete.records import Score
from melete.runs.run import Run

if TYPE_CHECKING:
    from melete.llm.processes.rl import Config

CLIP_LOW, CLIP_HIGH = 0.2, 0.28
"""Bounds of the ratio, 1 - low and 1 + high, as in DAPO."""
MICRO_TOKENS = {"cpu": 8192, "cuda": 65536}
"""Tokens of one forward pass, padding included."""
VAL_TRIES = 4
"""Tries of each held-out problem."""
Losses = Callable[[Tensor, Tensor], Tensor]


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
    """Moves the weights along the advantages of the groups that have any; nothing moves if none has.

    Args:
        learner: the policy.
        trials: groups of this rank.
        scale: the schedule's factor of the learning rates.
        config: `updates`, `kl`.
        world: the ranks that train together.
        reference: token losses of the starting model, for the KL penalty.

    Returns:
        Gradient norm, share of clipped tokens, mean gap between the engine's log-probs and the learner's, and KL.
    """
    mixed = [trial for trial in trials if trial.mixed]
    sums = torch.zeros(4, dtype=torch.float64, device=learner.lm.device)
    norm = 0.0
    for part in range(config.updates):
        moves = [
            (move, episode.reward - sum(trial.rewards) / len(trial.rewards))
            for trial in mixed[part :: config.updates]
            for episode in trial.episodes
            for move in episode.moves
        ]
        count = torch.tensor(sum(len(move.tokens) for move, _ in moves), device=learner.lm.device)
        total = int(world.sum(count).item())
        if total == 0:
            continue
        for batch in micro_batches(moves, learner.lm.device):
            loss, parts = policy_loss(learner, batch, config.kl, reference)
            (loss * (world.size / total)).backward()  # type: ignore[no-untyped-call]
            sums += parts
        norm = max(norm, learner.step(scale))
    clipped, gap, divergence, tokens = (float(value) for value in world.sum(sums))
    tokens = max(1.0, tokens)
    figures = {"gradient_norm": norm, "clipped": clipped / tokens, "engine_gap": gap / tokens}
    return {**figures, "kl": divergence / tokens} if config.kl else figures


@dataclass(frozen=True)
class Batch:
    """Moves side by side as rows (B, T): inputs, targets (-1 where nothing was drawn), the log-probs drawn with, and
    the advantages (B, 1)."""

    tokens: Tensor
    targets: Tensor
    drawn: Tensor
    advantages: Tensor


def policy_loss(learner: Learner, batch: Batch, kl: float, reference: Losses | None) -> tuple[Tensor, Tensor]:
    """Clipped surrogate summed over drawn tokens, and (4,) sums of clipped tokens, gap, KL and tokens."""
    mask = batch.targets != IGNORE
    logprobs = -learner.token_losses(batch.tokens, batch.targets)
    ratio = torch.where(mask, logprobs - batch.drawn, 0.0).exp()
    bounded = ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    losses = -torch.minimum(ratio * batch.advantages, bounded * batch.advantages) * mask
    divergence = torch.zeros_like(losses)
    if reference is not None:
        with torch.no_grad():
            other = -reference(batch.tokens, batch.targets)
        difference = torch.where(mask, other - logprobs, 0.0)
        divergence = difference.exp() - 1 - difference
        losses = losses + kl * divergence
    gap = (logprobs.detach() - batch.drawn).abs() * mask
    clipped = (ratio * batch.advantages > bounded * batch.advantages) & mask
    figures = torch.stack([clipped.sum(), gap.sum(), divergence.detach().sum(), mask.sum()])
    return losses.sum(), figures.double()


def micro_batches(moves: Sequence[tuple[Move, float]], device: torch.device) -> list[Batch]:
    """Moves of like lengths together, in rows padded on the right."""
    most = MICRO_TOKENS.get(device.type, 8192)
    groups: list[list[tuple[Move, float]]] = []
    for entry in sorted(moves, key=lambda entry: -_row_length(entry[0])):
        # Sorted from the longest: the first of a group sets its width.
        if groups and (len(groups[-1]) + 1) * _row_length(groups[-1][0][0]) <= most:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return [_batch(group, device) for group in groups]


def _row_length(move: Move) -> int:
    return len(move.prompt) + len(move.tokens) - 1


def _batch(group: Sequence[tuple[Move, float]], device: torch.device) -> Batch:
    shape = (len(group), _row_length(group[0][0]))
    tokens, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORE, dtype=np.int64)
    drawn = np.zeros(shape, dtype=np.float32)
    for i, (move, _) in enumerate(group):
        first, last = len(move.prompt) - 1, _row_length(move)
        tokens[i, :last] = [*move.prompt, *move.tokens[:-1]]
        targets[i, first:last] = move.tokens
        drawn[i, first:last] = move.logprobs
    advantages = np.array([[advantage] for _, advantage in group], dtype=np.float32)
    return Batch(*(torch.from_numpy(array).to(device) for array in (tokens, targets, drawn, advantages)))


class Draws:
    """Which problems to try: those whose success is uncertain come more often, and none is ever given up.

    The chance of a problem is p(1 - p) of its estimated success rate p, with one success and one failure assumed.
    """

    def __init__(self, count: int, seed: int, position: dict[str, list[int]] | None = None) -> None:
        self.seed = seed
        self.tries, self.solved = np.zeros(count), np.zeros(count)
        for index, (tries, solved) in (position or {}).items():
            self.tries[int(index)], self.solved[int(index)] = tries, solved

    @property
    def position(self) -> dict[str, list[int]]:
        """Tries and solutions by problem; plain JSON."""
        return {str(i): [int(self.tries[i]), int(self.solved[i])] for i in np.flatnonzero(self.tries)}

    def choose(self, step: int, count: int) -> list[int]:
        """Different problems for a step; a function of the seed, the step and what was learned."""
        rate = (self.solved + 1) / (self.tries + 2)
        chance = rate * (1 - rate)
        generator = np.random.default_rng([self.seed, step])
        size = min(count, len(chance))
        return [int(i) for i in generator.choice(len(chance), size, replace=False, p=chance / chance.sum())]

    def learn(self, outcomes: Sequence[tuple[int, Sequence[float]]]) -> None:
        """Takes the rewards of a step."""
        for index, results in outcomes:
            self.tries[index] += len(results)
            self.solved[index] += sum(result >= 1.0 for result in results)


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
