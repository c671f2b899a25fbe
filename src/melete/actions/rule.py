"""What a rule of a guard is: a file in `rules/` whose name is the rule's type, with `RULE` and an `EXAMPLE`.

    class Options(RuleOptions): ...          # what a guard file may say; unknown keys are errors
    class ReadOnly(Rule[Options, None]): ...
    RULE, EXAMPLE = ReadOnly, {"tools": ["get_order"]}

A rule is fixed once it is loaded. What it remembers of an episode is the state that its `start` returns, which is
handed to every other method. A rule that has nothing to say about an action returns None, which is the quick path:
texts are made only for a `Finding`.

Rules name actions by their *subject*: a tool call has the tool's name, everything else starts with `@`: `@message`,
`@discrete`, `@continuous`, `@ui.click`. `*` stands for any letters but never for a leading `@`. No tool can have such a
name, so a model cannot pass a call off as a message.
"""

from __future__ import annotations

import enum
import fnmatch
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, NamedTuple, TypeGuard, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from melete.actions.action import (
    Action,
    ContinuousAction,
    DiscreteAction,
    Message,
    ToolAction,
    UIAction,
    compact_json,
)


class Verdict(enum.StrEnum):
    """What may happen with a proposed action, from mild to severe."""

    ALLOW = "allow"
    CLAMP = "clamp"
    ASK = "ask"
    REFUSE = "refuse"
    ABORT = "abort"


class Finding(NamedTuple):
    """What a rule says about an action; `action` is the clamped one where the verdict is clamp."""

    verdict: Verdict
    reason: str
    action: Action | None = None


class RuleOptions(BaseModel):
    """Options that every rule has.

    Of `tool` and `tools` at most one is given; with neither, the rule is about everything except messages.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    tool: str | None = Field(None, description="Tool that the rule is about.")
    tools: tuple[str, ...] | None = Field(None, description="Tools that the rule is about; * is a wildcard.")
    reason: str = Field("", description="Words for the policy, in place of the rule's own.")

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return values

    @model_validator(mode="after")
    def _one_way_to_name_tools(self) -> RuleOptions:
        if self.tool is not None and self.tools is not None:
            raise ValueError("give 'tool' or 'tools', not both.")
        return self

    @property
    def subjects(self) -> tuple[str, ...] | None:
        """Patterns of the subjects that the rule is about; None is all except messages."""
        return (self.tool,) if self.tool is not None else self.tools


O_ = TypeVar("O_", bound=RuleOptions)
S_ = TypeVar("S_")


class Rule(Generic[O_, S_]):
    """A rule that allows everything; the types override what they need.

    Attributes:
        options: what the guard file says.
        clamps: whether it may change an action; such rules look at it before all others.
    """

    Options: ClassVar[type[RuleOptions]]
    clamps: ClassVar[bool] = False

    def __init__(self, options: O_) -> None:
        self.options = options
        self.prepare()

    def prepare(self) -> None:
        """Computes once what follows from the options."""

    def start(self, facts: Mapping[str, Any], now_s: float) -> S_ | None:
        """State of one episode."""
        return None

    def sees(self, subject: str) -> bool:
        """Whether the rule has anything to do with actions of this subject."""
        patterns = self.options.subjects
        return subject != "@message" if patterns is None else named(subject, patterns)

    def allows(self, subject: str) -> bool:
        """Whether the rule lifts the default, which is to refuse."""
        return False

    def judge(self, state: S_, action: Action, now_s: float) -> Finding | None:
        """Says what speaks against an action; None is nothing."""
        return None

    def granted(self, state: S_, action: Action, now_s: float) -> None:
        """Notes that the action may now be executed."""

    def refused(self, state: S_, action: Action) -> Finding | None:
        """Notes that an action was refused, whatever its subject; may end the episode."""
        return None

    def record(self, state: S_, action: Action, ok: bool, result: Any, now_s: float) -> None:
        """Notes that an action was executed, whether it succeeded, and what it returned."""

    def confirm(self, state: S_, action: Action) -> bool:
        """Notes that a person confirmed an action; returns whether this rule had asked."""
        return False

    def beat(self, state: S_, now_s: float) -> None:
        """Notes that whoever watches is still there."""

    def refuse(self, action: Action, why: str, verdict: Verdict = Verdict.REFUSE) -> Finding:
        """A finding against an action, in the file's words if it has some."""
        words = {Verdict.REFUSE: "is refused", Verdict.ABORT: "ends the episode", Verdict.ASK: "has to wait"}
        return Finding(verdict, f"{name_of(action)} {words[verdict]}: {self.options.reason or why}")


def subject_of(action: Action) -> str:
    """How rules name an action; empty for a tool call whose name starts with `@`, which nothing allows."""
    if isinstance(action, ToolAction):
        return "" if action.name.startswith("@") else action.name
    if isinstance(action, Message):
        return "@message"
    if isinstance(action, UIAction):
        return f"@ui.{action.kind}"
    return "@discrete" if isinstance(action, DiscreteAction) else "@continuous"


def name_of(action: Action) -> str:
    """How a reason names an action."""
    if isinstance(action, ToolAction):
        return action.name[:64]
    return f"The {subject_of(action)[1:].replace('ui.', '')} action"


def named(subject: str, patterns: tuple[str, ...]) -> bool:
    """Whether a subject fits one of the patterns."""
    if subject in patterns:
        return True
    alike = (pattern for pattern in patterns if (subject[:1] == "@") == (pattern[:1] == "@"))
    return subject != "" and any(fnmatch.fnmatchcase(subject, pattern) for pattern in alike)


def arguments_of(action: Action) -> Mapping[str, Any]:
    """The arguments of any action by name, such as `text` of a message or `values` of a continuous one."""
    if isinstance(action, ToolAction):
        return action.arguments
    if isinstance(action, ContinuousAction):
        return {"values": list(action.values)}
    return vars(action)


def key_of(action: Action) -> str:
    """Text that is equal for equal actions; the id of a call is left out."""
    if isinstance(action, ToolAction):
        return action.key
    return subject_of(action) + compact_json(arguments_of(action))


def frozen(value: Any) -> Any:
    """A JSON value in a form that can be compared and kept in a set; 1 and 1.0 are equal, true and 1 are not."""
    if isinstance(value, (bool, list, dict)):
        return "json", json.dumps(value, sort_keys=True, default=str)
    return value


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number, and no bool and not NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
