"""Plays a scenario's requests with a model and reports tool reliability, task success, tokens and calls.

Free decoding and decoding held to the tools' JSON schemas stand in rows of their own. With --url any model behind an
OpenAI-compatible server plays the same requests, as the plain agent of the openai client, and gets the same table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run

if TYPE_CHECKING:
    from melete.agents.measure import Measured
    from melete.agents.scenario import Scenario
    from melete.settings import Settings


class Config(ProcessConfig):
    """Options of `agents.evaluate`."""

    scenario: str = Field("customer_support", description="Scenario to play.")
    base: Annotated[str, Input("model", kinds=("llm",))] = Field(
        "latest", description="Model to evaluate: a run, a transformers folder or a hub id."
    )
    url: str = Field("", description="Server whose model plays instead, with or without /v1.")
    model: str = Field("", description="The model's id at --url; empty takes the only one.")
    key_env: str = Field(
        "", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$",
        description="Environment variable that holds the key of --url; empty is MELETE_TOKEN on this machine.",
    )  # fmt: skip
    workers: int = Field(16, ge=1, le=256, description="Tasks that --url plays at once.")
    timeout_s: float = Field(300.0, gt=0, description="Longest that one task of --url may take, in seconds.")
    held_out: int = Field(300, ge=1, description="Tasks of each split but train.")
    max_tokens: int = Field(96, ge=1, description="Most tokens of one turn.")
    slots: int = Field(128, ge=1, description="Episodes that decode at once.")
    constrained: bool = Field(
        True, description="Measure decoding held to the tools' JSON schemas too, in a row of its own."
    )
    greedy: bool = Field(False, description="Measure decoding at temperature 0 too, in rows of its own.")
    record: bool = Field(
        True, description="Keep the rollouts as sessions for melete bench; those of --url are not."
    )

    @model_validator(mode="before")
    @classmethod
    def _name_one_model(cls, values: dict[str, Any]) -> dict[str, Any]:
        if not values.get("url"):
            return values
        if values.get("base"):
            raise ValueError("--base and --url name a model each; give one of them.")
        return {**values, "base": ""}


EXAMPLE = {"base": "latest", "held_out": 2, "max_tokens": 8, "constrained": False}


def main(config: Config, run: Run) -> None:
    """Runs it."""
    from melete import settings as settings_module
    from melete.agents import scenario as scenarios
    from melete.agents.alone import require_one_process
    from melete.agents.measure import table

    require_one_process("An exam of a scenario")
    settings = settings_module.load()
    scenario = scenarios.load(config.scenario)
    scenario.require_playable()
    if config.url:
        from melete.agents import exam_url

        run.result["model"], rows = exam_url.sit(config, scenario, run, settings.token)
        run.result["url"] = config.url
    else:
        rows = _by_engine(config, scenario, settings, run)
    for line in table([("", row) for row in rows]):
        run.say(line)
    run.result["prompt"] = scenario.prompt_id
    run.result["measured"] = [row.to_dict() for row in rows]


def _by_engine(config: Config, scenario: Scenario, settings: Settings, run: Run) -> list[Measured]:
    """A model of ours, straight through the engine."""
    from melete.agents.exam import Exam
    from melete.agents.hub import Played
    from melete.agents.recorded import Recording
    from melete.agents.rollout import WAITING
    from melete.llm import lm as lms
    from melete.llm.config import resolve_device
    from melete.llm.engine import Engine

    lm = lms.load(config.base, settings, resolve_device(config.device))
    model = Played(lm, Engine(lm, slots=min(config.slots, config.held_out), waiting=WAITING))
    recording = Recording(run, settings, scenario.name, lm.name) if config.record else None
    return Exam(model, scenario, config, run, recording).sit(None, 0, "now")
