"""Refuses the last step of a sequence of actions whose other steps were executed, in that order, and succeeded.

With `same`, only steps whose named arguments are equal belong together. With `consecutive`, any other action that is
executed in between begins the sequence anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from melete.actions.action import Action
from melete.actions.rule import Finding, Rule, RuleOptions, Verdict, arguments_of, frozen, subject_of

Places = dict[tuple[Any, ...], int]


class Options(RuleOptions):
    """The sequence."""

    tool: None = Field(None, description="Not used: the sequence names the tools.")
    tools: None = Field(None, description="Not used: the sequence names the tools.")
    sequence: tuple[str, ...] = Field(..., min_length=2, description="Tools, in order.")
    same: tuple[str, ...] = Field((), description="Arguments that are equal in every step.")
    consecutive: bool = Field(False, description="Whether other actions in between break the sequence.")
    verdict: Literal["refuse", "abort"] = Field("refuse", description="What happens at the last step.")


class ForbiddenSequence(Rule[Options, Places]):
    """Its state is how many steps were done, by the values of the `same` arguments."""

    Options = Options

    def start(self, facts: Mapping[str, Any], now_s: float) -> Places:
        """No step was done."""
        return {}

    def sees(self, subject: str) -> bool:
        """The steps, and everything else if it breaks the sequence."""
        return self.options.consecutive or subject in self.options.sequence

    def judge(self, state: Places, action: Action, now_s: float) -> Finding | None:
        """Refuses the last step."""
        *before, last = self.options.sequence
        if subject_of(action) != last or state.get(self._values(action), 0) < len(before):
            return None
        return self.refuse(
            action, f"it may not follow {' and '.join(before)}.", Verdict(self.options.verdict)
        )

    def record(self, state: Places, action: Action, ok: bool, result: Any, now_s: float) -> None:
        """Counts a step that succeeded."""
        if not ok:
            return
        sequence, subject, values = self.options.sequence, subject_of(action), self._values(action)
        done = state.get(values, 0)
        if done < len(sequence) - 1 and subject == sequence[done]:
            state[values] = done + 1
        elif self.options.consecutive:
            state.clear()
            state[values] = int(subject == sequence[0])

    def _values(self, action: Action) -> tuple[Any, ...]:
        arguments = arguments_of(action)
        return tuple(frozen(arguments.get(name)) for name in self.options.same)


RULE = ForbiddenSequence
EXAMPLE = {"sequence": ["cancel_order", "refund_order"], "same": ["order_id"]}
