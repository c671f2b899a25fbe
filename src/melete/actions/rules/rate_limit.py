"""Limits how many calls are allowed in any stretch of time.

A permission counts from the moment it is given, whether or not the call is then made.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from melete.actions.action import Action
from melete.actions.rule import Finding, Rule, RuleOptions


class Options(RuleOptions):
    """How many in how long."""

    calls: int = Field(..., ge=1, description="Most calls.")
    per_s: float = Field(..., gt=0, description="Within this many seconds.")


class RateLimit(Rule[Options, deque[float]]):
    """Its state are the times of the last permissions."""

    Options = Options

    def start(self, facts: Mapping[str, Any], now_s: float) -> deque[float]:
        """No permission yet."""
        return deque(maxlen=self.options.calls)

    def judge(self, state: deque[float], action: Action, now_s: float) -> Finding | None:
        """Refuses while the oldest of the last permissions is too young."""
        if len(state) < self.options.calls or now_s - state[0] >= self.options.per_s:
            return None
        wait_s = math.ceil(self.options.per_s - (now_s - state[0]))
        allowed = f"{self.options.calls} calls in {self.options.per_s:g} s are allowed"
        return self.refuse(action, f"{allowed}; wait {wait_s} s or go on without it.")

    def granted(self, state: deque[float], action: Action, now_s: float) -> None:
        """Notes the time."""
        state.append(now_s)


RULE = RateLimit
EXAMPLE = {"tools": ["get_*"], "calls": 30, "per_s": 60}
