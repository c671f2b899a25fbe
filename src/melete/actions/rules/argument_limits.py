"""Limits the arguments of a call: numbers by least and most, texts by pattern and length, values by a list or a fact.

Fails closed: a limited argument of another type than its limits speak of is refused, so `"900"` does not slip past a
`max`. A limit on a list holds for each of its elements; `min` and `max` may then be lists too, one per element. With
`filters: true` an object of comparisons such as `{"at_most": 9}` is limited by its values. With `otherwise: clamp` a
number is moved to the nearest one allowed and a text is cut, and the policy is told so; what has no nearest value is
refused. An argument that is not given is not limited: that is what the tool's schema is for.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from melete.actions.action import Action, ContinuousAction, ToolAction, compact_json
from melete.actions.rule import Finding, Rule, RuleOptions, Verdict, arguments_of, frozen, is_number
from melete.actions.schema import shown

Bound = float | tuple[float, ...] | None


class Limit(BaseModel):
    """What one argument may be."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    min: Bound = Field(None, description="Least number, or one per element of a list.")
    max: Bound = Field(None, description="Largest number, or one per element of a list.")
    enum: tuple[Any, ...] | None = Field(None, description="The values allowed.")
    pattern: str | None = Field(None, description="Regular expression that the whole text matches.")
    max_length: int | None = Field(None, ge=0, description="Most characters of a text.")
    fact: str | None = Field(None, description="The value has to equal this fact of the episode.")
    filters: bool = Field(False, description="Whether {at_most: 9} is limited by its values.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Limit:
        if self.model_fields_set <= {"filters"}:
            raise ValueError("give at least one of min, max, enum, pattern, max_length, fact.")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"pattern is no regular expression: {error}.") from error
        return self

    @cached_property
    def values(self) -> frozenset[Any]:
        """The values allowed, to be looked up."""
        return frozenset(frozen(value) for value in self.enum or ())

    @cached_property
    def regex(self) -> re.Pattern[str] | None:
        """The pattern, compiled."""
        return re.compile(self.pattern) if self.pattern is not None else None

    def problem(self, value: Any, facts: Mapping[str, Any], place: int = 0) -> str:
        """What is allowed, if the value is not; empty if it is. `place` is the index of an element."""
        if self.min is not None or self.max is not None:
            low, high = _at(self.min, place), _at(self.max, place)
            if not is_number(value) or value < low or value > high:
                return _range(low, high)
        if self.enum is not None and frozen(value) not in self.values:
            return "one of " + ", ".join(str(option) for option in self.enum)
        if self.regex is not None and not (isinstance(value, str) and self.regex.fullmatch(value)):
            return f"text of the form {self.pattern}"
        if self.max_length is not None and not (isinstance(value, str) and len(value) <= self.max_length):
            return f"text of at most {self.max_length} characters"
        if self.fact is not None and not (self.fact in facts and frozen(facts[self.fact]) == frozen(value)):
            return f"the {self.fact} of this conversation"
        return ""

    def nearest(self, value: Any, place: int = 0) -> Any:
        """The nearest value that min, max and max_length allow; the value itself where there is none."""
        if is_number(value) and (self.min is not None or self.max is not None):
            low, high = _at(self.min, place), _at(self.max, place)
            if isinstance(value, int):
                low, high = (
                    (math.ceil(low) if low > -math.inf else low),
                    (math.floor(high) if high < math.inf else high),
                )
            return min(max(value, low), high)
        if self.max_length is not None and isinstance(value, str):
            return value[: self.max_length]
        return value


class Options(RuleOptions):
    """The limits by argument, and what happens with a call that breaks them."""

    arguments: dict[str, Limit] = Field(..., min_length=1, description="Limits by argument.")
    otherwise: Literal["refuse", "clamp"] = Field("refuse", description="What happens outside the limits.")


class ArgumentLimits(Rule[Options, Mapping[str, Any]]):
    """Refuses or clamps; its state are the facts of the episode."""

    Options = Options
    clamps = True

    def start(self, facts: Mapping[str, Any], now_s: float) -> Mapping[str, Any]:
        """The facts."""
        return facts

    def judge(self, state: Mapping[str, Any], action: Action, now_s: float) -> Finding | None:
        """Looks at each limited argument that is given."""
        arguments = arguments_of(action)
        changed: dict[str, Any] = {}
        said: list[str] = []
        for name, limit in self.options.arguments.items():
            if name not in arguments:
                continue
            value = arguments[name]
            allowed = _problem(limit, value, state)
            if not allowed:
                continue
            near = _nearest(limit, value)
            if self.options.otherwise == "refuse" or _problem(limit, near, state):
                return self.refuse(action, f"{name} is {shown(value)}; allowed: {allowed}.")
            changed[name] = near
            said.append(
                f"{name} was {compact_json(value)} and is set to {compact_json(near)}; allowed: {allowed}."
            )
        if not changed:
            return None
        return Finding(Verdict.CLAMP, self.options.reason or " ".join(said), _with(action, changed))


def _problem(limit: Limit, value: Any, facts: Mapping[str, Any]) -> str:
    if limit.filters and isinstance(value, Mapping):
        return next(filter(None, (_problem(limit, item, facts) for item in value.values())), "")
    if not isinstance(value, (list, tuple)):
        return limit.problem(value, facts)
    if any(isinstance(bound, tuple) and len(bound) != len(value) for bound in (limit.min, limit.max)):
        return f"{len(next(b for b in (limit.min, limit.max) if isinstance(b, tuple)))} numbers"
    return next(filter(None, (limit.problem(item, facts, i) for i, item in enumerate(value))), "")


def _nearest(limit: Limit, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        if any(isinstance(bound, tuple) and len(bound) != len(value) for bound in (limit.min, limit.max)):
            return value
        return [limit.nearest(item, i) for i, item in enumerate(value)]
    return limit.nearest(value)


def _with(action: Action, changed: dict[str, Any]) -> Action:
    if isinstance(action, ToolAction):
        return dataclasses.replace(action, arguments={**action.arguments, **changed})
    if isinstance(action, ContinuousAction):
        return ContinuousAction(tuple(changed["values"]))
    return dataclasses.replace(action, **changed)


def _at(bound: Bound, place: int) -> float:
    if isinstance(bound, tuple):
        return bound[place]
    return bound if bound is not None else math.nan  # compares false with everything: no bound


def _range(low: float, high: float) -> str:
    if math.isnan(low):
        return f"a number of at most {high:g}"
    return f"a number of at least {low:g}" if math.isnan(high) else f"a number from {low:g} to {high:g}"


RULE = ArgumentLimits
EXAMPLE = {"tool": "refund_order", "arguments": {"amount": {"min": 0, "max": 500}}, "otherwise": "clamp"}
