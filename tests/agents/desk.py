"""A tiny scenario for tests of agents: a desk with tickets; the person's lines are calls that the echo model makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from melete.actions.guard import Guard
from melete.actions.tools import ToolFailure, ToolSet, tool
from melete.agents.hub import PolicyRef
from melete.agents.scenario import Criterion, Policy, Scenario, Task, World
from melete.serve import echo, models
from melete.serve.models import ServedModel

LINES = ('please\ncall look {"ticket":"T1"}', 'then\ncall close {"ticket":"T1","hours":2}', "thanks")
"""What the person of `task()` says, one line after each message of the agent."""


class DeskWorld(World):
    """Tickets that can be looked at and closed."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.state: dict[str, Any] = {"open": ["T1", "T2"], "closed": []}
        self._lines = list(lines)

    def opening(self) -> str:
        return self._lines.pop(0)

    def reply(self, text: str) -> str | None:
        return self._lines.pop(0) if self._lines else None

    @tool
    def look(self, ticket: str) -> dict[str, Any]:
        """Looks at a ticket.

        Args:
            ticket: Its id.
        """
        if ticket not in self.state["open"]:
            raise ToolFailure(f"There is no open ticket {ticket}.")
        return {"ticket": ticket, "open": True}

    @tool
    def close(self, ticket: str, hours: int = 0) -> str:
        """Closes a ticket.

        Args:
            ticket: Its id.
            hours: Hours of work that it took.
        """
        self.look(ticket)
        self.state["open"] = [one for one in self.state["open"] if one != ticket]
        self.state["closed"] = [*self.state["closed"], ticket]
        return f"{ticket} is closed"

    @tool
    def erase(self, ticket: str) -> str:
        """Erases a ticket, which nobody may.

        Args:
            ticket: Its id.
        """
        raise AssertionError("the guard let it through")


class Desk(Scenario):
    """See the head of this file."""

    name = "desk"
    description = "Close the ticket that the person names."
    max_steps = 10
    toolset = ToolSet.of(DeskWorld)
    guard = Guard.from_dict(
        {"name": "desk", "version": "1", "rules": [{"allow_list": {"tools": ["look", "close"]}}]}
    )
    system_prompt = "You work at a desk."

    def tasks(self, split: str, count: int | None = None, start: int = 0, seed: int = 0) -> list[Task]:
        return [task(f"{split}-{i}") for i in range(start, start + (count or 1))]

    def world(self, task: Task) -> World:
        return DeskWorld([task.request, *task.goal["then"]])

    def success_criteria(self) -> list[Criterion]:
        return [Criterion("closed", "T1 is closed.", lambda state: "T1" in state["closed"])]

    def expert(self, task: Task) -> Policy:
        raise NotImplementedError


def task(name: str = "one", lines: Sequence[str] = LINES) -> Task:
    """A task whose person says these lines."""
    return Task(name, "desk", "train", lines[0], {"then": list(lines[1:])}, 0)


def echo_model() -> ServedModel:
    """The echo model, as a policy that does what the person says."""
    lm = echo.load()
    return ServedModel("echo", lm, echo.EchoEngine(lm), models.ECHO)


def policy_at(url: str, model: str, **sampling: Any) -> PolicyRef:
    """A policy of a server."""
    return PolicyRef(f"{url}/v1", model, 0, "", sampling)
