"""Ends the episode: after a number of refusals, after the same action over and over, or on a forbidden text.

The pattern is searched for in the text of the action, name and arguments; the reason does not repeat it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator, model_validator

from melete.actions.action import Action
from melete.actions.rule import Finding, Rule, RuleOptions, Verdict, key_of


class Options(RuleOptions):
    """At least one of the three reasons to end."""

    refusals: int | None = Field(None, ge=1, description="The refusal that ends the episode, counted from 1.")
    repeats: int | None = Field(None, ge=2, description="How often in a row the same action ends it.")
    pattern: str | None = Field(None, description="Regular expression that no action may contain.")

    @field_validator("pattern")
    @classmethod
    def _regular(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"no regular expression: {error}.") from error
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Options:
        if self.refusals is None and self.repeats is None and self.pattern is None:
            raise ValueError("give 'refusals', 'repeats' or 'pattern'.")
        return self


@dataclass
class Counts:
    """Refusals so far, and the last action with how often it came in a row."""

    refusals: int = 0
    last: str = ""
    repeats: int = 0


class Abort(Rule[Options, Counts]):
    """Its state are counts."""

    Options = Options
    _search: Callable[[str], object] | None = None

    def prepare(self) -> None:
        """Compiles the pattern."""
        if self.options.pattern is not None:
            self._search = re.compile(self.options.pattern).search

    def start(self, facts: Mapping[str, Any], now_s: float) -> Counts:
        """Nothing happened yet."""
        return Counts()

    def judge(self, state: Counts, action: Action, now_s: float) -> Finding | None:
        """Ends on a forbidden text or a repeated action."""
        if self._search is None and self.options.repeats is None:
            return None
        key = key_of(action)
        if self._search is not None and self._search(key):
            return self.refuse(action, "it contains what no action may contain.", Verdict.ABORT)
        state.repeats = state.repeats + 1 if key == state.last else 1
        state.last = key
        if self.options.repeats is not None and state.repeats >= self.options.repeats:
            return self.refuse(action, f"it came {state.repeats} times in a row.", Verdict.ABORT)
        return None

    def refused(self, state: Counts, action: Action) -> Finding | None:
        """Ends at the last refusal allowed."""
        state.refusals += 1
        if self.options.refusals is None or state.refusals < self.options.refusals:
            return None
        return self.refuse(action, f"{state.refusals} actions of this episode were refused.", Verdict.ABORT)


RULE = Abort
EXAMPLE = {"refusals": 10, "repeats": 8}
