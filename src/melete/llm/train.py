"""Pretraining: the loop from text to a checkpoint, on one page.

Each step takes one global batch, in as many pieces as fit, and moves the weights once. The checkpoint is written
before anything is evaluated, so a crash in an evaluation loses nothing; a loss or a gradient that is not finite ends
the run before the weights are touched. A run killed at any moment goes on from its last checkpoint with the same
numbers, bit for bit on the CPU: weights are kept in fp32, with the optimizer's state and the exact place in the data.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from melete.errors import ConfigError
from melete.llm.checkpoint import save_model
from melete.llm.config import Plan
from melete.llm.data import Rows, bits_per_byte
from melete.llm.distributed import World
from melete.llm.model import GPT
from melete.llm.optim import Optimizer
from melete.llm.tokenizer import Tokenizer
from melete.runs import checkpoints
from melete.runs.run import Run

PROMPTS = ("The ", "Once upon a time", "def main(")
SAMPLE_TOKENS = 40


@dataclass
class Pretraining:
    """What the loop works with.

    Attributes:
        plan: shape, batch, rates and horizon.
        model: on its device, in its compute dtype.
        optimizer: of the model.
        rows: training batches.
        validation: (R, T + 1) held-out rows.
        tokenizer: of the model.
        world: the ranks that train together.
        device: of the model.
        eval_every: steps between validations; 0 validates at the end only.
        save_every: steps between checkpoints; 0 saves at the end only.
        peak_flops: FLOP/s of the device, for MFU.
        dataset: fingerprint of the training text.
    """

    plan: Plan
    model: GPT
    optimizer: Optimizer
    rows: Rows
    validation: Tensor
    tokenizer: Tokenizer
    world: World
    device: torch.device
    eval_every: int
    save_every: int
    peak_flops: float
    dataset: str


def train(job: Pretraining, run: Run, start: int = 0) -> None:
    """Trains from step `start` to the end of the plan.

    Raises:
        TrainingError: a loss or a gradient that is not finite.
    """
    plan = job.plan
    tokens_per_step = plan.batch_rows * plan.model.context
    step = start - 1
    for step in run.steps(plan.steps, start=start):
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        batch = next(job.rows)
        loss = forward_backward(job, batch.tokens, batch.targets)
        run.check_finite(step, loss)
        norm = job.optimizer.step(plan.scale(step))
        run.check_finite(step, norm, "gradient norm")

        wall_s = time.perf_counter() - began_s
        figures = {"loss": loss, "rate": plan.scale(step), "gradient_norm": norm}
        figures["tokens_per_s"] = round(tokens_per_step / wall_s)
        cpu_s = (time.process_time() - began_cpu_s) * job.world.size
        figures["tokens_per_cpu_s"] = round(tokens_per_step / max(cpu_s, 1e-9))
        flops = job.model.flops_per_token() * tokens_per_step / wall_s
        figures["mfu"] = round(flops / (job.peak_flops * job.world.size), 4)
        figures["epoch"] = job.rows.epoch
        run.log(step, figures)

        if run.should_save(step, job.save_every):
            save(job, run, step + 1)
        if job.eval_every and (step + 1) % job.eval_every == 0 and step + 1 < plan.steps:
            run.log(step, {"val_bpb": evaluate(job, run)})

    if not run.stopping and step >= 0:
        bpb = evaluate(job, run)
        run.log(step, {"val_bpb": bpb})
        run.result.update(val_bpb=round(bpb, 4), steps=step + 1, tokens=(step + 1) * tokens_per_step)
        run.say(f"Validation: {bpb:.4f} bits per byte over {job.validation.numel():,} tokens.")
        if not run.silent:
            for name, text in sample(job).items():
                run.sample(step, name, text)


def forward_backward(job: Pretraining, tokens: Tensor, targets: Tensor) -> float:
    """Adds the gradient of the mean loss to `.grad` and returns that loss, over all ranks.

    Args:
        job: the training.
        tokens: (B, T) this rank's rows.
        targets: (B, T).
    """
    pieces = tokens.size(0) // job.plan.micro_rows
    total = torch.zeros((), device=job.device)
    for piece_tokens, piece_targets in zip(tokens.chunk(pieces), targets.chunk(pieces), strict=True):
        loss = job.model(
            piece_tokens.to(job.device, non_blocking=True), piece_targets.to(job.device, non_blocking=True)
        )
        (loss / pieces).backward()
        total += loss.detach()
    return job.world.sum(total).item() / pieces / job.world.size


@torch.no_grad()
def evaluate(job: Pretraining, run: Run) -> float:
    """Bits per byte on the held-out rows, shared among the ranks; special tokens are not counted."""
    job.model.eval()
    token_bytes = torch.from_numpy(job.tokenizer.token_bytes).to(job.device)
    nats = torch.zeros(
        2, dtype=torch.float64 if job.device.type != "mps" else torch.float32, device=job.device
    )
    own = job.validation[job.world.rank :: job.world.size]
    with run.timed("evaluating"):
        for rows in torch.split(own, max(1, 16_384 // job.plan.model.context)):
            part = rows.to(job.device)
            losses = job.model(part[:, :-1], part[:, 1:], reduction="none")
            counted = token_bytes[part[:, 1:]]
            nats[0] += (losses * (counted > 0)).sum()
            nats[1] += counted.sum()
        job.world.sum(nats)
    job.model.train()
    return bits_per_byte(nats[0].item(), int(nats[1].item()))


@torch.no_grad()
def sample(job: Pretraining) -> dict[str, str]:
    """A few continuations at temperature 0.8 by full forward passes; the same ones for the same weights."""
    job.model.eval()
    generator = torch.Generator().manual_seed(0)
    texts = {}
    for number, prompt in enumerate(PROMPTS):
        ids = [job.tokenizer.bos, *job.tokenizer.encode(prompt)]
        for _ in range(SAMPLE_TOKENS):
            window = torch.tensor([ids[-job.plan.model.context :]], device=job.device)
            logits = job.model(window)[0, -1].float().cpu()
            ids.append(int(torch.multinomial((logits / 0.8).softmax(-1), 1, generator=generator)))
        texts[f"prompt{number + 1}"] = job.tokenizer.decode(ids[1:])
    job.model.train()
    return texts


def save(job: Pretraining, run: Run, step: int) -> None:
    """Writes a checkpoint after `step` optimizer steps; every rank must call it, the first one writes."""
    weights, state = job.optimizer.master_weights(), job.optimizer.state_tensors()
    save_model(
        run,
        stage="pretrain",
        step=step,
        model_config=job.plan.model,
        weights=weights,
        tokenizer=job.tokenizer,
        state={**state, "rng": torch.get_rng_state()},
        data_position=job.rows.position,
        config={"dataset": job.dataset, "rates": dataclasses.asdict(job.plan.rates), "steps": job.plan.steps},
    )
    job.world.barrier()


def resume_point(run: Run) -> tuple[int, dict[str, Any] | None]:
    """Steps done and place in the data of the run's last checkpoint; (0, None) without one."""
    folder = run.latest_checkpoint() if run.resuming else None
    if folder is None:
        return 0, None
    record = checkpoints.read(folder)
    return record.step, record.data_position


def restore(job: Pretraining, run: Run) -> int:
    """Takes weights, optimizer state and random state of the run's last checkpoint; returns the steps done.

    Raises:
        ConfigError: the training text is not the one that the run began with.
    """
    folder = run.latest_checkpoint() if run.resuming else None
    if folder is None:
        run.rewind(-1)
        return 0
    record = checkpoints.read(folder)
    if record.config.get("dataset") != job.dataset:
        raise ConfigError(
            "The training text has changed since this run began, so it cannot go on at the same place.",
            next_step="Put the text back as it was, or start a new run.",
        )
    job.optimizer.load_master_weights(checkpoints.load(folder, "model", job.device))
    state = checkpoints.load(folder, "state")
    torch.set_rng_state(state.pop("rng"))
    job.optimizer.load_state_tensors({name: tensor.to(job.device) for name, tensor in state.items()})
    run.rewind(record.step - 1)
    run.say(f"Continuing from {folder.name}.")
    return record.step


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """FLOP/s that MFU is measured against, and where the figure is from."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, peak in (
            ("H200", 989e12),
            ("H100", 989e12),
            ("A100", 312e12),
            ("4090", 165e12),
            ("L4", 121e12),
        ):
            if part in name and dtype == torch.bfloat16:
                return peak, f"{name}: {peak / 1e12:.0f} TFLOP/s dense bf16, from its data sheet"
    size = 1024 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = 0.0
    for _ in range(4):
        began_s = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - began_s))
    return best, f"{best / 1e9:,.0f} GFLOP/s, measured on a {size} x {size} matmul"
