"""Writes a scenario's demonstrations as conversations for `llm sft`, a share of them with mistakes, as in real logs.

They are played by the scenario's scripted expert in the real environment under its guard. `llm sft --data` takes the
run.
"""

from __future__ import annotations

from pydantic import Field

from melete.runs.process import ProcessConfig
from melete.runs.run import Run


class Config(ProcessConfig):
    """Options of `agents.demonstrate`."""

    scenario: str = Field("customer_support", description="Scenario to demonstrate.")
    count: int = Field(4000, ge=1, description="Conversations to train on.")
    val: int = Field(100, ge=0, description="Further conversations to validate on.")
    error_share: float = Field(
        0.0, ge=0, le=1, description="Share of the conversations in which the expert makes mistakes."
    )


EXAMPLE = {"count": 4, "val": 1, "error_share": 0.5}


def main(config: Config, run: Run) -> None:
    """Runs it."""
    from melete.agents import demonstrate

    demonstrate.write(config, run)
