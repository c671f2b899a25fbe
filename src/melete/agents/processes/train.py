"""Practises a scenario by reinforcement learning until its tool calls succeed, and reports before and after.

The model plays each task several times and learns from what its better tries have over its worse ones. It starts from
one that solves some tasks sometimes: `agents demonstrate`, then `llm sft`. An agent of a framework practises unchanged
with --framework: it reaches the model by URL.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run


class Config(ProcessConfig):
    """Options of `agents.train`."""

    scenario: str = Field("customer_support", description="Scenario to practise.")
    base: Annotated[str, Input("model", kinds=("llm",))] = Field(
        "latest", description="Model to start from: a run, a transformers folder or a hub id."
    )
    framework: str = Field("", description="Framework whose agent practises; empty is the model itself.")
    agent: str = Field(
        "", description="Your own agent of the framework, module:function; empty is its plain one."
    )
    hub: str = Field("local", description="What runs the episodes: local, agentlightning, agentlightning03.")
    gpu: str = Field(
        "auto",
        description="Where: auto, local, cpu, runpod, lambda, kubernetes, slurm; runpod:H100:2 names GPU and count.",
    )
    yes: bool = Field(False, description="Agree to the price of a rented GPU beforehand.")
    steps: int = Field(60, ge=1, description="Steps: play, reward, update.")
    minutes: float = Field(0.0, ge=0, description="Practice ends after this time; 0 is no limit.")
    problems: int = Field(16, ge=1, description="Tasks of a step.")
    group: int = Field(8, ge=2, description="Tries of each task.")
    pool: int = Field(4096, ge=1, description="Tasks that are practised, drawn from the train split.")
    max_tokens: int = Field(96, ge=1, description="Most tokens of one turn.")
    updates: int = Field(1, ge=1, description="Optimizer steps that the groups of a step are split over.")
    rate: float = Field(1.0, gt=0, description="Factor of the learning rates.")
    decay: float = Field(0.7, ge=0, le=1, description="Share at the end over which the rates fall.")
    kl: float = Field(0.0, ge=0, description="Weight of the KL penalty to the starting model; 0 is none.")
    refusal_cost: float = Field(
        0.0, ge=0, description="Taken off the reward for each call that the guard had to refuse."
    )
    lora_rank: int = Field(
        0, ge=0, description="Rank of a LoRA adapter for a transformers base; 0 trains all."
    )
    ahead: bool = Field(
        True, description="Play the next step's tasks while the weights are updated; off resumes exactly."
    )
    max_staleness: int = Field(
        1, ge=0, description="Versions that the weights of an episode may be behind; older ones are dropped."
    )
    workers: int = Field(16, ge=1, description="Agents of a framework that run at once.")
    timeout_s: float = Field(0.0, ge=0, description="Longest an episode may take; 0 is no limit.")
    held_out: int = Field(300, ge=1, description="Tasks of each other split, played before and after.")
    constrained: bool = Field(
        True, description="Measure decoding held to the tools' JSON schemas too, in a row of its own."
    )
    greedy: bool = Field(False, description="Measure decoding at temperature 0 too, in rows of its own.")
    record: Literal["all", "exams", "none"] = Field(
        "exams", description="Rollouts kept as sessions for melete bench: all, those of the exams, or none."
    )
    save_every: int = Field(0, ge=0, description="Steps between checkpoints; 0 saves at the end.")


EXAMPLE = {
    "base": "latest", "steps": 1, "problems": 2, "group": 2, "pool": 2, "max_tokens": 8, "held_out": 2,
    "constrained": False,
}  # fmt: skip


def plan(config: Config) -> list[tuple[str, object, str]]:
    """Where it would run; for a machine elsewhere its price and the whole task."""
    from melete.agents import compute

    return compute.plan(config.gpu, "agents.train", config.model_dump())


def main(config: Config, run: Run) -> None:
    """Runs it here, or hands it over to a machine elsewhere."""
    from melete.agents import compute

    target = compute.resolve(config.gpu)
    if target.elsewhere:
        agreed = compute.asked(config.yes)
        target.launch("agents.train", config.model_dump(), run=run, confirm=agreed, say=run.say)
        return
    from melete.agents import frameworks, hub, train

    # What is wrong with these is said before the model is measured, which takes minutes.
    hub.require(config.hub)
    if config.framework or config.agent:
        frameworks.agent(config.framework or "openai", config.agent)
    chosen = {} if config.gpu == compute.AUTO else {"device": target.device}
    train.train(config.model_copy(update=chosen), run)
