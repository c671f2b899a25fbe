"""Refuses a call until another tool has succeeded, with matching values, or until facts of the episode hold.

`match` maps an argument of this call to a field of the earlier one: of its arguments or else of its result, or said
exactly as `arguments.customer_id`, `result.customer.id` or `fact.customer_id`. A field that is a list matches each of
its elements. Fails closed: an argument or a field that is missing matches nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field, model_validator

from melete.actions.action import Action
from melete.actions.rule import Finding, Rule, RuleOptions, arguments_of, frozen, named, subject_of


class Options(RuleOptions):
    """What has to come first."""

    needs: str | tuple[str, ...] = Field(
        (), description="A tool that has to have succeeded, or one of several."
    )
    match: dict[str, str] = Field({}, description="Argument of this call: field of the earlier one.")
    within_s: float | None = Field(None, gt=0, description="How long an earlier success counts.")
    facts: dict[str, Any] = Field({}, description="Facts of the episode that have to hold.")

    @model_validator(mode="after")
    def _says_something(self) -> Options:
        if not self.needs and not self.facts:
            raise ValueError("give 'needs' or 'facts'.")
        if self.match and not self.needs:
            raise ValueError("'match' compares with the tool in 'needs', which is not given.")
        return self


@dataclass
class Seen:
    """Facts, and of each earlier success its time and the values that match, per entry of `match`."""

    facts: Mapping[str, Any]
    successes: list[tuple[float, tuple[frozenset[Any], ...]]] = field(default_factory=list)


class Precondition(Rule[Options, Seen]):
    """Its state is what succeeded before."""

    Options = Options
    _earlier: tuple[str, ...] = ()

    def prepare(self) -> None:
        """Reads the tools that may come first."""
        needs = self.options.needs
        self._earlier = (needs,) if isinstance(needs, str) and needs else tuple(needs)

    def start(self, facts: Mapping[str, Any], now_s: float) -> Seen:
        """Nothing succeeded yet."""
        return Seen(facts)

    def sees(self, subject: str) -> bool:
        """The guarded tools, and those that have to come first."""
        return super().sees(subject) or named(subject, self._earlier)

    def judge(self, state: Seen, action: Action, now_s: float) -> Finding | None:
        """Refuses while nothing that succeeded fits."""
        options, subject = self.options, subject_of(action)
        if named(subject, self._earlier) or not super().sees(subject):
            return None
        for name, value in options.facts.items():
            if name not in state.facts or frozen(state.facts[name]) != frozen(value):
                return self.refuse(action, f"{name} is not {value}.")
        if not self._earlier:
            return None
        arguments = arguments_of(action)
        wanted = [frozen(arguments[name]) if name in arguments else _MISSING for name in options.match]
        since_s = now_s - options.within_s if options.within_s else None
        for at_s, values in state.successes:
            if (since_s is None or at_s >= since_s) and all(map(_contains, values, wanted)):
                return None
        first = " or ".join(self._earlier)
        fitting = f" for the same {' and '.join(options.match)}" if options.match else ""
        return self.refuse(action, f"{first} has not succeeded{fitting}; call {first} first.")

    def record(self, state: Seen, action: Action, ok: bool, result: Any, now_s: float) -> None:
        """Keeps the values of a success."""
        if ok and named(subject_of(action), self._earlier):
            fields = self.options.match.values()
            values = tuple(_values(path, action, result, state.facts) for path in fields)
            state.successes.append((now_s, values))


_MISSING = object()


def _contains(values: frozenset[Any], wanted: Any) -> bool:
    return wanted in values


def _values(path: str, action: Action, result: Any, facts: Mapping[str, Any]) -> frozenset[Any]:
    if isinstance(result, str) and result[:1] == "{":
        try:
            result = json.loads(result)
        except ValueError:
            result = None
    roots = {"arguments": arguments_of(action), "result": result, "fact": facts}
    root, _, rest = path.partition(".")
    found = _dig(roots[root], rest) if rest and root in roots else None
    if found is None:
        found = _dig(roots["arguments"], path)
    if found is None:
        found = _dig(result, path)
    if found is None:
        return frozenset()
    return frozenset(map(frozen, found)) if isinstance(found, (list, tuple)) else frozenset((frozen(found),))


def _dig(value: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


RULE = Precondition
EXAMPLE = {"tool": "refund_order", "needs": "verify_identity", "match": {"customer_id": "customer_id"}}
