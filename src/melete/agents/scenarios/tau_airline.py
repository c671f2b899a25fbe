"""Customer service of an airline, from tau-bench: 50 tasks written by people, to evaluate on.

The agent books, changes and cancels reservations of a customer who gives their user id. Success is the database
after the gold actions, and that what was asked has been said. There is no training part: `unseen` is the only
split. The data are not in this repository: `melete data card tool_tau_bench` says where they come from. Limits: the
customer is a script, see `_tau/person.py`; which fares may be changed or cancelled is left to the agent, as the
policy says, and shows only in the database at the end.
"""

from __future__ import annotations

from melete.actions.action import Message, ToolAction
from melete.actions.trace import TraceWriter
from melete.agents.environment import Environment
from melete.agents.scenario import Proposal, Task
from melete.agents.scenarios._tau import airline
from melete.agents.scenarios._tau.scenario import TauScenario


class TauAirline(TauScenario):
    """The airline. Its one split, `unseen`, is the data's test part."""

    name = "tau_airline"
    description = "tau-bench airline: book, change and cancel flights under a policy, with a customer."
    shop = "airline"
    tables = airline.TABLES
    parts = {"unseen": "test"}  # noqa: RUF012  fixed
    world_class = airline.AirlineWorld

    def create_environment(
        self,
        task: Task | None = None,
        split: str = "unseen",
        trace: TraceWriter | None = None,
        run: str = "",
        episode: str = "",
    ) -> Environment:
        """As in every scenario; the split is `unseen` where none is named."""
        return super().create_environment(task, split, trace, run, episode)

    def identify(self, task: Task) -> list[Proposal]:
        """Asks for the user id and reads the profile."""
        return [
            Message("Hello! Please tell me your user id, so that I can find your reservations."),
            ToolAction("get_user_details", {"user_id": task.goal["user_id"]}),
        ]

    def look_up(self, action: ToolAction) -> list[ToolAction]:
        """The reservation that is changed."""
        reservation_id = action.arguments.get("reservation_id")
        if reservation_id is None:
            return []
        return [ToolAction("get_reservation_details", {"reservation_id": reservation_id})]


SCENARIO = TauAirline
