"""Writes what Agent Lightning's verl trainer needs to practise the same job on GPUs: configuration, tasks and commands.

Takes the options of `agents train` for a transformers model and writes a folder `handover` into the run. Nothing is
trained here; the folder's README says what to start where.
"""

from __future__ import annotations

from pydantic import Field

from melete.agents.processes import train
from melete.runs.run import Run


class Config(train.Config):
    """Options of `agents.handover`: those of `agents.train`, and where the GPUs are."""

    base: str = Field("Qwen/Qwen3-4B", description="Model to start from: a transformers folder or a hub id.")
    framework: str = Field("openai", description="Framework whose agent practises.")
    url: str = Field(
        "http://127.0.0.1:8080", description="Agent Lightning's server, as trainer and workers reach it."
    )
    gpus: int = Field(8, ge=1, description="GPUs of a machine.")
    nodes: int = Field(1, ge=1, description="Machines.")
    parallel: int = Field(1, ge=1, description="GPUs that one copy of the model is spread over for rollouts.")
    prompt_tokens: int = Field(4096, ge=1, description="Most tokens of system prompt, tools and request.")
    tool_parser: str = Field("hermes", description="vLLM's parser of the model's tool calls.")
    pool: int = Field(1024, ge=1, description="Tasks that are practised.")


EXAMPLE = {"steps": 1, "pool": 4, "held_out": 2}


def main(config: Config, run: Run) -> None:
    """Runs it."""
    from melete.agents import verl

    verl.write(config, run)
