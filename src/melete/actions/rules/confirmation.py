"""Asks: a person has to confirm this very call, with these arguments, before it is allowed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from melete.actions.action import Action
from melete.actions.rule import Finding, Rule, RuleOptions, Verdict, arguments_of, is_number, key_of


class Options(RuleOptions):
    """Which calls have to be confirmed."""

    above: dict[str, float] = Field({}, description="Only where one of these arguments is above its number.")


@dataclass
class Asked:
    """Calls that were asked for, and those of them that a person has confirmed."""

    asked: set[str] = field(default_factory=set)
    confirmed: set[str] = field(default_factory=set)


class Confirmation(Rule[Options, Asked]):
    """Its state is what was asked and confirmed."""

    Options = Options

    def start(self, facts: Mapping[str, Any], now_s: float) -> Asked:
        """Nothing was asked."""
        return Asked()

    def judge(self, state: Asked, action: Action, now_s: float) -> Finding | None:
        """Asks, unless the call is small enough or confirmed."""
        if self.options.above and not self._above(action):
            return None
        key = key_of(action)
        if key in state.confirmed:
            return None
        state.asked.add(key)
        why = "the person has to confirm it first; say what you will do and ask."
        return self.refuse(action, why, Verdict.ASK)

    def granted(self, state: Asked, action: Action, now_s: float) -> None:
        """Uses the confirmation up."""
        if state.confirmed:
            state.confirmed.discard(key_of(action))

    def confirm(self, state: Asked, action: Action) -> bool:
        """Keeps the confirmation of a call that was asked for."""
        key = key_of(action)
        if key not in state.asked:
            return False
        state.asked.discard(key)
        state.confirmed.add(key)
        return True

    def _above(self, action: Action) -> bool:
        arguments = arguments_of(action)
        return any(
            name in arguments and not (is_number(arguments[name]) and arguments[name] <= limit)
            for name, limit in self.options.above.items()
        )


RULE = Confirmation
EXAMPLE = {"tool": "refund_order", "above": {"amount": 100}}
