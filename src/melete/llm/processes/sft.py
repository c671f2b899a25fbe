"""Finetunes a language model on conversations, with tool calls and results.

The base is a run of ours, a folder in transformers layout or a hub id; the data is a mixture of datasets or a JSONL
file of one's own, one `{"messages": […], "tools": […]}` a line.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run


class Config(ProcessConfig):
    """Options of `llm.sft`."""

    base: Annotated[str, Input("model", kinds=("llm",))] = Field(
        "latest", description="Model to start from: a run, a transformers folder or a hub id."
    )
    data: Annotated[str, Input("dataset")] = Field(
        "toolcalls",
        description="Datasets or JSONL files, with shares of the conversations: toolcalls:0.7,chat_star:0.3.",
    )
    epochs: float = Field(1.0, gt=0, description="Times that the data is seen, if --steps is 0.")
    steps: int = Field(0, ge=0, description="Optimizer steps; 0 follows from --epochs.")
    batch_tokens: int = Field(
        0, ge=0, description="Tokens of an optimizer step; 0 is 2,048 on a CPU and 16,384 on a GPU."
    )
    apart: int = Field(
        0,
        ge=0,
        description="Conversations of a step, each in a row of its own; 0 packs rows of --batch-tokens.",
    )
    context: int = Field(0, ge=0, description="Tokens of a row; 0 takes the model's context, at most 2,048.")
    rate: float = Field(1.0, gt=0, description="Factor of the learning rates.")
    lora_rank: int = Field(
        0, ge=0, description="Rank of a LoRA adapter for a transformers base; 0 trains all."
    )
    val_rows: int = Field(32, ge=0, description="Rows that the validation loss is taken over.")
    val_every: int = Field(100, ge=0, description="Steps between validations; 0 validates at the end.")
    val_turns: int = Field(48, ge=0, description="Held-out tool calls that the model tries at the end.")
    save_every: int = Field(0, ge=0, description="Steps between checkpoints; 0 saves at the end.")


EXAMPLE = {
    "base": "latest",
    "data": "toolcalls",
    "steps": 2,
    "batch_tokens": 512,
    "val_rows": 2,
    "val_turns": 2,
}


def main(config: Config, run: Run) -> None:
    """Runs it."""
    from melete.llm import sft

    sft.train(config, run)
