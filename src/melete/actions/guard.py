"""Judges every proposed action before it is executed: allow, clamp, refuse, ask or abort, with reasons to read."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melete.actions.action import Action


class Verdict(enum.StrEnum):
    """What may happen with a proposed action, from mild to severe."""

    ALLOW = "allow"
    CLAMP = "clamp"
    ASK = "ask"
    REFUSE = "refuse"
    ABORT = "abort"


@dataclass(frozen=True)
class Judgement:
    """A verdict, the action that may be executed (clamped if so), the reasons, and the rule type that decided."""

    verdict: Verdict
    action: Action
    reasons: tuple[str, ...] = ()
    rule: str = ""


class GuardSession:
    """A guard during one episode."""

    def judge(self, action: Action, now_s: float | None = None) -> Judgement:
        """Judges a proposed action."""
        raise NotImplementedError

    def record(self, action: Action, ok: bool, result: Any = None) -> None:
        """Tells that an action was executed, whether it succeeded, and the value that it returned."""
        raise NotImplementedError

    def confirm(self, action: Action) -> None:
        """Tells that a person confirmed an action that was asked for; it is then allowed once."""
        raise NotImplementedError

    def beat(self, now_s: float | None = None) -> None:
        """Tells that whoever watches is still there (for the dead-man rule)."""
        raise NotImplementedError


class Guard:
    """A set of rules, fixed once it is loaded."""

    name: str
    version: str

    @classmethod
    def load(cls, path_or_name: str | Path) -> Guard:
        """Loads a guard file."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "guard") -> Guard:
        """Builds a guard from the content of a guard file; `source` stands in error messages."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The content of the guard file, as it was loaded."""
        raise NotImplementedError

    def start(self, facts: Mapping[str, Any] | None = None) -> GuardSession:
        """Begins an episode; `facts` are what is known to be true in it, such as who is logged in."""
        raise NotImplementedError
