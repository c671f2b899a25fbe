"""Writes a model to a folder that other programs can use, in transformers layout where that is faithful.

A finetuned transformers model is written with its adapter merged; our own architecture is written as safetensors and
JSON that Melete loads by path.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run


class Config(ProcessConfig):
    """Options of `llm.export`."""

    run: Annotated[str, Input("checkpoint", kinds=("llm",))] = Field(
        "latest", description="Model: a run, id:step, a checkpoint folder."
    )
    to: str = Field("", description="Folder to write; empty writes `export` in this run's own folder.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Dtype of the weights; the 16-bit ones halve the size."
    )


EXAMPLE = {"run": "latest"}


def main(config: Config, run: Run) -> None:
    """Runs it."""
    from pathlib import Path

    import torch

    from melete import settings
    from melete.llm.export import export

    assert run.folder is not None, "export runs in one process"
    to = Path(config.to).expanduser() if config.to else run.folder / "export"
    run.say(export(config.run, to, settings.load(), getattr(torch, config.dtype)))
