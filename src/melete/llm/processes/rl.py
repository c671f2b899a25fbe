"""Practises a task with a checkable reward, such as arithmetic with a calculator or exact tool calls.

Group-relative policy gradient: the model tries each problem several times and learns from what its better tries have
over its worse ones. It starts from a model that solves some problems sometimes, such as the result of `llm sft`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run


class Config(ProcessConfig):
    """Options of `llm.rl`."""

    base: Annotated[str, Input("model", kinds=("llm",))] = Field(
        "latest", description="Model to start from: a run, a transformers folder or a hub id."
    )
    task: str = Field("toolcalls", description="Task to practise: calculator, gsm8k or toolcalls.")
    steps: int = Field(60, ge=1, description="Steps: sample, reward, update.")
    problems: int = Field(24, ge=1, description="Problems of a step.")
    group: int = Field(8, ge=2, description="Tries of each problem.")
    max_tokens: int = Field(64, ge=1, description="Most tokens of one turn.")
    updates: int = Field(1, ge=1, description="Optimizer steps that the groups of a step are split over.")
    rate: float = Field(1.0, gt=0, description="Factor of the learning rates.")
    kl: float = Field(0.0, ge=0, description="Weight of the KL penalty to the starting model; 0 is none.")
    lora_rank: int = Field(
        0, ge=0, description="Rank of a LoRA adapter for a transformers base; 0 trains all."
    )
    slots: int = Field(64, ge=1, description="Episodes that decode at once.")
    val_problems: int = Field(
        100, ge=1, description="Held-out problems, tried four times each before and after."
    )
    save_every: int = Field(0, ge=0, description="Steps between checkpoints; 0 saves at the end.")


EXAMPLE = {
    "base": "latest", "steps": 2, "problems": 2, "group": 2, "max_tokens": 8, "val_problems": 2,
}  # fmt: skip


def main(config: Config, run: Run) -> None:
    """Runs it."""
    from melete.llm import rl

    rl.train(config, run)
