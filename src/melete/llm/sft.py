"""Supervised finetuning: conversations in packed rows, loss on what the assistant writes, from base to checkpoint.

The loss of a step is the sum over its trained tokens divided by their number in the whole batch, over all
micro-batches and ranks, so that a row with few answers weighs no more than its answers. A checkpoint is written
before anything is evaluated. Limits: see `packing.py` for long conversations, `learner.py` for what is trained.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from melete import metrics
from melete import settings as settings_module
from melete.errors import ConfigError
from melete.llm import finetune, grpo, merge
from melete.llm.config import resolve_device
from melete.llm.distributed import World, join
from melete.llm.engine import Engine
from melete.llm.learner import Learner, schedule
from melete.llm.packing import Piece, Rows, Source, fixed_rows, open_mixture
from melete.llm.rewards import toolcalls
from melete.llm.rollout import fitting, rollouts, transcript
from melete.records import Score
from melete.runs.run import Run
from melete.settings import Settings

if TYPE_CHECKING:
    from melete.llm.processes.sft import Config

BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}
"""Tokens of a step; at depth 4 on a CPU 1,024 learn the same per token and 4,096 clearly less."""
ANSWER_TOKENS = 96
"""Most tokens of a turn that is tried."""
MICRO_TOKENS = {"cpu": 4096, "cuda": 32768}
"""Tokens of one forward pass."""
Row = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """What the config leaves to the data: tokens of a row, rows of a step, steps in all, steps of warm-up."""

    context: int
    rows: int
    steps: int
    warmup: int


def train(config: Config, run: Run) -> None:
    """Finetunes a model on conversations; see the head of this file."""
    settings = settings_module.load()
    world, device = join(resolve_device(config.device))
    start = finetune.begin(
        run, settings, base=config.base, device=device, fraction=config.rate,
        lora_rank=config.lora_rank, world=world,
    )  # fmt: skip
    learner = start.learner
    context = row_length(config.context, learner.lm.context)
    with run.timed("reading conversations"):
        sources = open_mixture(config.data, "train", learner.lm.chat, context + 1, settings)
        held_out = open_mixture(config.data, "val", learner.lm.chat, context + 1, settings)
    plan = make_plan(config, sources, context, device, world)
    val = fixed_rows(held_out, context, config.val_rows)
    for source in sources:
        run.datasets[source.name] = source.fingerprint
        run.say(f"{source.name}: {len(source):,} conversations")
    run.say(describe(config, plan, learner, start.source))
    rows = Rows(sources, context, config.seed, start.position.get("rows"))

    for step in run.steps(plan.steps, start=start.step):
        began_s = time.perf_counter()
        if config.apart:
            pieces = [rows.piece() for _ in range(config.apart)][world.rank :: world.size]
            tokens = sum(map(len, pieces)) * world.size
            loss, trained = accumulate_apart(learner, pieces, world)
        else:
            batch = [next(rows) for _ in range(plan.rows)][world.rank :: world.size]
            tokens = plan.rows * context
            loss, trained = accumulate(learner, batch, world)
        run.check_finite(step, loss)
        norm = learner.step(schedule(step, plan.steps, plan.warmup))
        run.check_finite(step, norm, "gradient norm")
        seconds = time.perf_counter() - began_s
        speed = tokens / seconds
        run.log(step, {"loss": loss, "gradient_norm": norm, "trained_tokens": trained, "tokens_per_s": speed})
        if run.should_save(step, config.save_every):
            learner.save(
                run, stage="sft", step=step + 1, data_position={"rows": rows.position},
                config={"started_from": start.source, "data": config.data},
            )  # fmt: skip
        if val and run.should_save(step, config.val_every):
            val_loss = evaluate(learner, val[world.rank :: world.size], world)
            run.log(step, {"val_loss": val_loss})
            run.say(f"step {step + 1}: val loss {val_loss:.4f}")
            run.result["val_loss"] = round(val_loss, 4)
    for source in sources:
        run.say(f"{source.name}: {source.tally.text()}")
    if world.rank == 0:
        try_turns(learner, held_out, config, run, settings)
    world.close()


def accumulate(learner: Learner, rows: list[Row], world: World) -> tuple[float, int]:
    """Adds up the gradient of a step.

    Returns:
        Loss per trained token and number of trained tokens, over all ranks.
    """
    device = learner.lm.device
    trained = int(world.sum(torch.tensor(_targets(rows), device=device)).item())
    total = torch.zeros((), device=device)
    for tokens, targets in micro_batches(rows, device):
        # Ranks average their gradients, so each one's share is scaled up by their number.
        loss = learner.loss(tokens, targets) * (world.size / max(1, trained))
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return float(world.sum(total).item()) / world.size, trained


def accumulate_apart(learner: Learner, pieces: list[Piece], world: World) -> tuple[float, int]:
    """`accumulate` for conversations in rows of their own, with what all of them begin with computed once.

    Each stands at the place, and sees what, it will when the model writes it; a long list of tools costs next to
    nothing.
    """
    device = learner.lm.device
    rows = [
        (merge.Row(piece.ids.astype(np.int64), np.where(piece.trained, 0.0, np.nan).astype(np.float32)), 1.0)
        for piece in pieces
    ]
    trained = int(world.sum(torch.tensor(sum(row.drawn for row, _ in rows), device=device)).item())
    total = torch.zeros((), device=device)
    for batch in grpo.micro_batches(rows, device, share=learner.beginnings != "none"):
        loss = learner.loss(batch.tokens, batch.targets, batch.prefix) * (world.size / max(1, trained))
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return float(world.sum(total).item()) / world.size, trained


@torch.no_grad()
def evaluate(learner: Learner, rows: list[Row], world: World) -> float:
    """Loss per trained token of some rows, over all ranks."""
    device = learner.lm.device
    total = torch.zeros(2, dtype=torch.float64, device=device)
    for tokens, targets in micro_batches(rows, device):
        total[0] += learner.loss(tokens, targets).double()
    total[1] = _targets(rows)
    loss, count = (float(value) for value in world.sum(total))
    return loss / max(1.0, count)


def try_turns(learner: Learner, held_out: list[Source], config: Config, run: Run, settings: Settings) -> None:
    """Lets the model answer held-out requests, keeps some as samples, and scores the tool calls."""
    lm = learner.lm
    due = toolcalls.decisions(c for source in held_out for c in source.conversations[: 2 * config.val_turns])
    problems = fitting(lm, due, ANSWER_TOKENS)
    calls = [p for p in problems if p.answer][: config.val_turns]
    talk = [p for p in problems if not p.answer][: config.val_turns // 4]
    if not calls and not talk:
        return
    engine = Engine(lm, slots=min(32, len(calls) + len(talk)))
    engine.swap(learner.weights())
    task = toolcalls.Task(settings)
    with run.timed("trying held-out turns"):
        episodes = rollouts(
            engine, lm, task, [*calls, *talk], max_tokens=ANSWER_TOKENS, temperature=0.0, seed=(config.seed,)
        )
    shown = [*episodes[:4], *episodes[len(calls) :][:2]]
    run.sample(0, "held_out_turns", "\n\n".join(map(transcript, shown)))
    if calls:
        exact = sum(episode.reward == 1.0 for episode in episodes[: len(calls)])
        rate = metrics.success_rate(exact, len(calls))
        run.say(
            f"tool calls on held-out requests: {exact} of {len(calls)} exact ({rate.low:.0%} to {rate.high:.0%})"
        )
        score = Score("sft/calls_exact", rate.value, rate.count, rate.low, rate.high, "held out, greedy")
        run.result["calls_exact"] = dataclasses.asdict(score)


def micro_batches(rows: list[Row], device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Rows as tensors (B, T) of a size that one forward pass takes well."""
    if not rows:
        return []
    size = max(1, MICRO_TOKENS.get(device.type, 8192) // len(rows[0][0]))
    return [
        (_stack([row[0] for row in rows[i : i + size]], device), _stack([row[1] for row in rows[i : i + size]], device))
        for i in range(0, len(rows), size)
    ]  # fmt: skip


def make_plan(
    config: Config, sources: list[Source], context: int, device: torch.device, world: World
) -> Plan:
    """Rows, steps and warm-up from the data.

    Raises:
        ConfigError: fewer rows in a step than ranks.
    """
    batch_tokens = config.batch_tokens or BATCH_TOKENS.get(device.type, 2048)
    rows = max(1, round(batch_tokens / context))
    if rows < world.size:
        raise ConfigError(
            f"A step of {batch_tokens:,} tokens has {rows} row(s) for {world.size} ranks.",
            next_step=f"Use --batch-tokens {world.size * context} or more.",
        )
    if config.apart:
        conversations = config.epochs * sum(map(len, sources))
        steps = config.steps or max(1, math.ceil(conversations / config.apart))
        return Plan(context, config.apart, steps, warmup=min(20, steps // 10))
    weight = sum(source.weight for source in sources)
    mean = sum(source.weight / weight * source.mean_length() for source in sources)
    tokens = config.epochs * sum(map(len, sources)) * mean
    steps = config.steps or max(1, math.ceil(tokens / (rows * context)))
    return Plan(context, rows, steps, warmup=min(20, steps // 10))


def row_length(wanted: int, most: int) -> int:
    """Tokens of a row.

    Raises:
        ConfigError: more than the model's context.
    """
    if wanted > most:
        raise ConfigError(
            f"--context {wanted:,} is longer than the model's context.", allowed=f"At most {most:,}."
        )
    return wanted or min(most, 2048)


def describe(config: Config, plan: Plan, learner: Learner, base: str) -> str:
    """What will be done, with the derived values."""
    model = learner.lm.model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return (
        f"{base} ({trained:,} trained parameters): {plan.steps:,} steps of {plan.rows} "
        f"{'conversations' if config.apart else f'rows x {plan.context} tokens'}, "
        f"warm-up {plan.warmup} steps, rates x{config.rate:g} of the stage's default"
    )


def _targets(rows: list[Row]) -> int:
    return sum(int((targets >= 0).sum()) for _, targets in rows)


def _stack(arrays: list[np.ndarray], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays)).to(device, non_blocking=True)
