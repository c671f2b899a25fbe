"""Customer service of a shop, from tau-bench: 500 generated tasks to train on, 135 by people to evaluate.

The agent finds out who the customer is, looks up orders and products, and cancels, changes, returns or exchanges
what the policy allows. Success is the database after the gold actions, and that what was asked has been said. The
data are not in this repository: `melete data card tool_tau_bench` says where they come from. Limits: the customer
is a script, see `_tau/person.py`, and of the policy the guard holds only what is mechanical, see
`tau_retail/guard.yaml`.
"""

from __future__ import annotations

from melete.actions.action import Message, ToolAction
from melete.agents.scenario import Proposal, Task
from melete.agents.scenarios._tau import data, retail
from melete.agents.scenarios._tau.scenario import TauScenario


class TauRetail(TauScenario):
    """The shop. Splits: `train` and `held_out` are the data's train and dev parts, `unseen` its test part."""

    name = "tau_retail"
    description = (
        "tau-bench retail: change, cancel, return and exchange orders under a policy, with a customer."
    )
    shop = "retail"
    tables = retail.TABLES
    parts = {"train": "train", "held_out": "dev", "unseen": "test"}  # noqa: RUF012  fixed
    world_class = retail.RetailWorld

    def identify(self, task: Task) -> list[Proposal]:
        """Asks, then looks the customer up by email or by name and zip code, whichever they gave."""
        user = data.tables(self.shop, self.tables)["users"][task.goal["user_id"]]
        found = ToolAction("find_user_id_by_email", {"email": user["email"]})
        if user["email"] not in task.goal["instruction"]:
            found = ToolAction("find_user_id_by_name_zip", {**user["name"], "zip": user["address"]["zip"]})
        return [
            Message("Hello! Please tell me your email, or your name and zip code, so that I can find you."),
            found,
            ToolAction("get_user_details", {"user_id": task.goal["user_id"]}),
        ]

    def look_up(self, action: ToolAction) -> list[ToolAction]:
        """The order, and the products of the items that are changed."""
        order_id = action.arguments.get("order_id")
        order = data.tables(self.shop, self.tables)["orders"].get(str(order_id))
        if order is None:
            return []
        reads = [ToolAction("get_order_details", {"order_id": order_id})]
        if "new_item_ids" in action.arguments:
            changed = set(action.arguments["item_ids"])
            products = {item["product_id"] for item in order["items"] if item["item_id"] in changed}
            reads += [ToolAction("get_product_details", {"product_id": one}) for one in sorted(products)]
        return reads


SCENARIO = TauRetail
