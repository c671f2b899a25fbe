"""Limits an episode's calls, or the sum of one of their arguments, such as the money that an agent moves.

A permission counts when it is given; with `failed: free` it is given back if the call fails. Amounts count without
their sign, so that a negative one makes no room. Fails closed: an amount that is missing or no number is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from melete.actions.action import Action
from melete.actions.rule import Finding, Rule, RuleOptions, arguments_of, is_number


class Options(RuleOptions):
    """Either `calls`, or `argument` and `total`."""

    calls: int | None = Field(None, ge=0, description="Most calls in an episode.")
    argument: str | None = Field(None, description="Argument whose sum is limited.")
    total: float | None = Field(None, ge=0, description="Most that the sum may be.")
    failed: Literal["count", "free"] = Field("count", description="Whether failed calls count.")

    @model_validator(mode="after")
    def _one_kind(self) -> Options:
        if (self.argument is None) != (self.total is None) or (self.calls is None) == (self.total is None):
            raise ValueError("give 'calls', or 'argument' and 'total'.")
        return self


class Budget(Rule[Options, list[float]]):
    """Its state is a list of one number, what is used."""

    Options = Options

    def start(self, facts: Mapping[str, Any], now_s: float) -> list[float]:
        """Nothing is used."""
        return [0.0]

    def judge(self, state: list[float], action: Action, now_s: float) -> Finding | None:
        """Refuses what would go over."""
        options = self.options
        if options.total is None:
            if state[0] + 1 <= (options.calls or 0):
                return None
            return self.refuse(
                action, f"all {options.calls} calls of this episode are used; go on without it."
            )
        amount = arguments_of(action).get(options.argument or "")
        if not is_number(amount):
            return self.refuse(action, f"{options.argument} is no number, so it cannot be counted.")
        if state[0] + abs(amount) <= options.total:
            return None
        left = f"at most {options.total - state[0]:g} of {options.total:g} are left"
        return self.refuse(action, f"{options.argument} is {amount:g}; {left} in this episode.")

    def granted(self, state: list[float], action: Action, now_s: float) -> None:
        """Uses up."""
        state[0] += self._cost(action)

    def record(self, state: list[float], action: Action, ok: bool, result: Any, now_s: float) -> None:
        """Gives back what a failed call took."""
        if not ok and self.options.failed == "free":
            state[0] = max(0.0, state[0] - self._cost(action))

    def _cost(self, action: Action) -> float:
        if self.options.total is None:
            return 1.0
        amount = arguments_of(action).get(self.options.argument or "")
        return abs(amount) if is_number(amount) else 0.0


RULE = Budget
EXAMPLE = {"tool": "refund_order", "argument": "amount", "total": 1000}
