"""What the worlds of both shops share: the journal as state, the scripted customer, and the tools without a database.

The state is `changed` (records that differ, see `journal`), `agreed` (indices of the gold actions that the customer
has confirmed), `told` (required outputs that the agent has said), `heard` (messages of the agent),
`identified` and `transferred`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from melete.actions.action import ToolAction
from melete.actions.tools import ToolFailure, tool
from melete.agents.scenario import World
from melete.agents.scenarios._tau import person
from melete.agents.scenarios._tau.journal import Journal, Record
from melete.llm.calculator import CalculatorError, evaluate, show

PATIENCE = 20
"""Messages of the agent after which the customer gives up."""
INSISTS = 3
"""Messages of the agent after which the customer gives up what cannot be done."""


class TauWorld(World):
    """One episode: database, customer, and what has been said.

    Args:
        journal: the shop's database.
        goal: `user_id`, `instruction`, `actions`, `failing`, `outputs` of the task; see `_tau.scenario`.
    """

    writes: frozenset[str]
    """Tools that change the database: the customer confirms each such call."""

    def __init__(self, journal: Journal, goal: dict[str, Any]) -> None:
        self.journal = journal
        self.goal = goal
        self.wanted = [
            ToolAction(action["name"], action["arguments"])
            for index, action in enumerate(goal["actions"])
            if action["name"] in self.writes and index not in goal["failing"]
        ]
        self.state = {
            "changed": journal.changed, "agreed": [], "told": [], "heard": 0, "identified": False, "transferred": False,
        }  # fmt: skip

    @abstractmethod
    def identity(self) -> str:
        """What the customer answers when asked who they are."""

    @abstractmethod
    def wish(self, action: ToolAction) -> str:
        """A gold action as the customer would ask for it."""

    def opening(self) -> str:
        """The request, without name and address."""
        return person.request(self.goal["instruction"])

    def reply(self, text: str) -> str | None:
        """Who they are if asked, else the next wish; None when all is done, or after `PATIENCE` messages."""
        state = self.state
        state["heard"] += 1
        told = {wanted for wanted in self.goal["outputs"] if person.says(text, wanted)}
        state["told"] = sorted(told.union(state["told"]))
        if state["transferred"] or state["heard"] >= PATIENCE:
            return None
        waiting = [wish for index, wish in enumerate(self.wanted) if index not in state["agreed"]]
        asked_again = "?" in text and bool(waiting)
        if person.ASKS_WHO.search(text) and (asked_again or not state["identified"]):
            state["identified"] = True
            return self.identity()
        if waiting:
            yes = "Yes, please. " if person.ASKS_YES.search(text) else ""
            return yes + self.wish(waiting[0])
        if not set(state["told"]) >= set(self.goal["outputs"]):
            return f"That does not answer all of it. {self.opening()}"
        in_vain = not self.wanted and not self.goal["outputs"]
        return f"I insist. {self.opening()}" if in_vain and state["heard"] < INSISTS else None

    def confirm(self, action: ToolAction) -> bool:
        """Yes to a gold action that was not confirmed before, no to anything else."""
        for index, wish in enumerate(self.wanted):
            if index not in self.state["agreed"] and same_call(wish, action):
                self.state["agreed"].append(index)
                return True
        return False

    def facts(self) -> dict[str, Any]:
        """Who the customer is, for the guard."""
        return {"user_id": self.goal["user_id"]}

    def user(self, user_id: str) -> Record:
        """A user's record to read.

        Raises:
            ToolFailure: there is no such user.
        """
        user = self.journal.get("users", user_id)
        if user is None:
            raise ToolFailure("user not found")
        return user

    @tool
    def calculate(self, expression: str) -> str:
        """Work out an arithmetic expression.

        Args:
            expression: Numbers, `+ - * /` and parentheses, such as '2 + 2'.
        """
        try:
            value = evaluate(expression)
        except CalculatorError as error:
            raise ToolFailure(str(error)) from error
        return show(value) if isinstance(value, (bool, int)) else show(round(value, 2))

    @tool
    def think(self, thought: str) -> str:
        """Think in writing. Nothing is looked up or changed.

        Args:
            thought: The thought.
        """
        return ""

    @tool
    def transfer_to_human_agents(self, summary: str) -> str:
        """Hand the user over to a human agent, if the request is beyond these tools.

        Args:
            summary: What the user wants and what was done.
        """
        self.state["transferred"] = True
        return "Transfer successful"


def same_call(one: ToolAction, other: ToolAction) -> bool:
    """Whether two calls ask for the same: items may be listed in another order, numbers written in another way."""
    return one.name == other.name and _plain(one.arguments) == _plain(other.arguments)


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    old, new = arguments.get("item_ids"), arguments.get("new_item_ids")
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return {**arguments, "item_ids": sorted(zip(old, new, strict=True)), "new_item_ids": None}
    if isinstance(old, list):
        return {**arguments, "item_ids": sorted(old)}
    return arguments
