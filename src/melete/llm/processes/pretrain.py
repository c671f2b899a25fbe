"""Pretrains a language model from raw text; one dial, --depth, decides what is not given.

Text comes from a known dataset or from a folder or file of one's own; the tokenizer is an earlier run's or is
trained first. Prints each derived value with its reason, then trains, validates in bits per byte and samples.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run

if TYPE_CHECKING:
    import torch

    from melete.datasets import Dataset
    from melete.llm.config import Plan
    from melete.llm.tokenizer import Tokenizer


class Config(ProcessConfig):
    """Options of `llm.pretrain`; 0 means that depth decides."""

    depth: int = Field(3, ge=1, le=64, description="Layers; the dial that the rest follows from.")
    data: Annotated[str, Input("dataset")] = Field(
        "", description="Dataset, or a folder or file of text; empty is classic books or stdlib."
    )
    tokenizer: Annotated[str, Input("checkpoint", kinds=("tokenizer", "llm"))] = Field(
        "", description="Tokenizer run or file; empty trains one on the data."
    )
    vocab_size: int = Field(4096, ge=264, description="Vocabulary of a tokenizer that is trained first.")
    tokens: int = Field(0, ge=0, description="Tokens to train on; 0 is 12 per matmul parameter.")
    steps: int = Field(0, ge=0, description="Optimizer steps, instead of --tokens.")
    width: int = Field(0, ge=0, description="Channels; 0 is 64 per layer.")
    kv_heads: int = Field(0, ge=0, description="Heads of keys and values; 0 is one per query head.")
    context: int = Field(0, ge=0, description="Tokens of a row; 0 is 256 on a CPU, 2,048 on a GPU.")
    batch_tokens: int = Field(0, ge=0, description="Tokens of an optimizer step; 0 follows from --tokens.")
    micro_rows: int = Field(0, ge=0, description="Rows a device takes at once; 0 is what should fit.")
    rate: float = Field(1.0, gt=0, description="Factor of every learning rate.")
    eval_every: int = Field(0, ge=0, description="Steps between validations; 0 validates at the end.")
    eval_tokens: int = Field(65_536, ge=1, description="Held-out tokens of a validation.")
    save_every: int = Field(250, ge=0, description="Steps between checkpoints; 0 saves at the end.")
    dtype: str = Field("auto", pattern="^(auto|bf16|fp32)$", description="auto, bf16 or fp32.")
    compile: str = Field(
        "auto", pattern="^(auto|on|off)$", description="torch.compile: auto is on with CUDA and Triton."
    )
    fp8: bool = Field(False, description="fp8 matmuls in the layers; needs a GPU that has them.")


EXAMPLE = {
    "depth": 1, "width": 64, "context": 64, "batch_tokens": 512, "steps": 4, "vocab_size": 320, "data": "stdlib",
    "eval_tokens": 512,
}  # fmt: skip


def plan(config: Config) -> list[tuple[str, str, str]]:
    """The derived values (name, value, reason), as `--dry-run` shows them; nothing is read but the device."""
    from melete.llm.config import resolve_device

    derived = _plan(config, config.vocab_size, resolve_device(config.device), 1)
    return [(row.name, row.value, row.reason) for row in derived.rows]


def main(config: Config, run: Run) -> None:
    """Runs it."""
    import torch

    from melete.llm import data, train
    from melete.llm.config import compute_dtype, resolve_device
    from melete.llm.distributed import join
    from melete.llm.fp8 import use_fp8
    from melete.llm.model import GPT
    from melete.llm.optim import build_optimizer

    world, device = join(resolve_device(config.device))
    dtypes = {"auto": compute_dtype(device), "bf16": torch.bfloat16, "fp32": torch.float32}
    dataset, tokenizer = _text(config, run)
    derived = _plan(config, tokenizer.vocab_size, device, world.size)
    for row in derived.rows:
        run.say(f"{row.name:<20} {row.value:>14}  {row.reason}")
    peak, peak_source = train.peak_flops(device, dtypes[config.dtype])
    run.say(f"MFU is against {peak_source}.")

    context, done = derived.model.context, train.resume_point(run)
    model = GPT(derived.model).initialize(config.seed)
    masters = {name: p.detach().to(device) for name, p in model.named_parameters()}
    model = model.to(device=device, dtype=dtypes[config.dtype])
    optimizer = build_optimizer(model, derived.rates, world)
    optimizer.load_master_weights(masters)
    if config.fp8:
        use_fp8(model, device)
    has_triton = device.type == "cuda" and find_spec("triton") is not None
    if config.compile == "on" or (config.compile == "auto" and has_triton):
        model.compile_training()
    rows = data.Rows(
        dataset, "train", tokenizer, context, derived.batch_rows, config.seed, world, position=done[1],
        chunk_chars=data.chunk_chars(derived.tokens),
    )  # fmt: skip
    job = train.Pretraining(
        plan=derived,
        model=model,
        optimizer=optimizer,
        rows=rows,
        validation=data.validation_rows(dataset, tokenizer, context, config.eval_tokens),
        tokenizer=tokenizer,
        world=world,
        device=device,
        eval_every=config.eval_every,
        save_every=config.save_every,
        peak_flops=peak,
        dataset=dataset.fingerprint,
    )
    try:
        train.train(job, run, train.restore(job, run))
    finally:
        rows.close()
        world.close()


def _plan(config: Config, vocab_size: int, device: torch.device, ranks: int) -> Plan:
    from melete.llm.config import plan as derive

    given: dict[str, Any] = {
        name: getattr(config, name)
        for name in ("width", "kv_heads", "context", "batch_tokens", "rate", "micro_rows")
    }
    return derive(
        config.depth, vocab_size, device, tokens=config.tokens, steps=config.steps, ranks=ranks, **given
    )


def _text(config: Config, run: Run) -> tuple[Dataset, Tokenizer]:
    """Opens the dataset and finds, or trains, its tokenizer."""
    from melete import datasets, settings
    from melete.llm.tokenizing import find_or_train

    known = settings.load()
    dataset = datasets.open(config.data or datasets.default_text(known), known)
    run.datasets[dataset.manifest.id] = dataset.fingerprint
    return dataset, find_or_train(config.tokenizer, dataset, config.vocab_size, run, known)
