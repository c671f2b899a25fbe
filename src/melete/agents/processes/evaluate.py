"""Plays a scenario's requests with a model and reports tool reliability, task success, tokens and calls.

Free decoding and decoding held to the tools' JSON schemas stand in rows of their own.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run


class Config(ProcessConfig):
    """Options of `agents.evaluate`."""

    scenario: str = Field("customer_support", description="Scenario to play.")
    base: Annotated[str, Input("model", kinds=("llm",))] = Field(
        "latest", description="Model to evaluate: a run, a transformers folder or a hub id."
    )
    held_out: int = Field(300, ge=1, description="Tasks of each split but train.")
    max_tokens: int = Field(96, ge=1, description="Most tokens of one turn.")
    slots: int = Field(128, ge=1, description="Episodes that decode at once.")
    constrained: bool = Field(
        True, description="Measure decoding held to the tools' JSON schemas too, in a row of its own."
    )
    greedy: bool = Field(False, description="Measure decoding at temperature 0 too, in rows of its own.")
    record: bool = Field(True, description="Keep the rollouts as sessions for melete bench.")


EXAMPLE = {"base": "latest", "held_out": 2, "max_tokens": 8, "constrained": False}


def main(config: Config, run: Run) -> None:
    """Runs it."""
    from melete import settings as settings_module
    from melete.agents import scenario as scenarios
    from melete.agents.exam import Exam
    from melete.agents.hub import Played
    from melete.agents.measure import table
    from melete.agents.recorded import Recording
    from melete.agents.rollout import WAITING
    from melete.llm import lm as lms
    from melete.llm.config import resolve_device
    from melete.llm.engine import Engine

    settings = settings_module.load()
    lm = lms.load(config.base, settings, resolve_device(config.device))
    model = Played(lm, Engine(lm, slots=min(config.slots, config.held_out), waiting=WAITING))
    scenario = scenarios.load(config.scenario)
    recording = Recording(run, settings, scenario.name, lm.name) if config.record else None
    rows = Exam(model, scenario, config, run, recording).sit(None, 0, "now")
    for line in table([("", row) for row in rows]):
        run.say(line)
    run.result["prompt"] = scenario.prompt_id
    run.result["measured"] = [row.to_dict() for row in rows]
