"""Refuses, or ends the episode, when whoever watches has not been heard of for some time (`session.beat()`).

The start of the episode counts as the first beat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from melete.actions.action import Action
from melete.actions.rule import Finding, Rule, RuleOptions, Verdict


class Options(RuleOptions):
    """How long silence may last."""

    timeout_s: float = Field(..., gt=0, description="Longest silence, in seconds.")
    verdict: Literal["refuse", "abort"] = Field("abort", description="What happens after it.")


class DeadMan(Rule[Options, list[float]]):
    """Its state is a list of one number, the time of the last beat."""

    Options = Options

    def start(self, facts: Mapping[str, Any], now_s: float) -> list[float]:
        """The start counts as a beat."""
        return [now_s]

    def judge(self, state: list[float], action: Action, now_s: float) -> Finding | None:
        """Refuses after too long a silence."""
        if now_s - state[0] <= self.options.timeout_s:
            return None
        why = f"nobody has been watching for more than {self.options.timeout_s:g} s."
        return self.refuse(action, why, Verdict(self.options.verdict))

    def beat(self, state: list[float], now_s: float) -> None:
        """Somebody watches."""
        state[0] = max(state[0], now_s)


RULE = DeadMan
EXAMPLE = {"tools": ["@continuous"], "timeout_s": 0.5}
