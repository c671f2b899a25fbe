"""A shop's support desk: refunds, cancellations, parcels and questions, with rules that the agent has to keep.

A request is drawn from a grammar (`customer_support/phrases.yaml`) and from names, orders and places
(`entities.yaml`); the person may leave out the order or the email, want two things, ask for what is not allowed, or try
to talk the agent out of its rules. `guard.yaml` holds the rules. The agent has to verify who asks before money moves or
data change, look before it acts, ask for exactly what is missing, and say no politely.

Splits: `train` and `held_out` share the pool of lines but never a combination. A combination is the goals, the
sentences that tell the problem and the way the order and the email are given; a quarter of them, a fifth of the pairs
of goals, a fifth of all names and a fifth of all order numbers are kept for `held_out`. `unseen` has lines of its own,
so no sentence that opens or tells a problem is shared with training, on top of the held-out entities.

Limits: English, one order a request, and a person who answers by keywords.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from melete.actions import prompts
from melete.actions.action import Message, ToolAction
from melete.actions.guard import Guard
from melete.actions.tools import ToolFailure, ToolSet, tool
from melete.agents.mistakes import Slips, bad_day
from melete.agents.phrases import Pool
from melete.agents.scenario import Criterion, Policy, Prices, Scenario, State, Task, World, copy_state
from melete.agents.scenarios import _support_requests as requests
from melete.agents.scenarios._support_requests import RETURN_DAYS, Concern, Reason, Topic
from melete.errors import ConfigError

DATA = Path(__file__).with_suffix("")
TABLES = ("orders", "phones", "tickets")
REFUSAL = re.compile(
    r"\b(sorry|cannot|can't|unable|not (able|possible|allowed|permitted)|won't|no longer)\b", re.I
)


class SupportWorld(World):
    """Orders, phone numbers and tickets of one episode, the tools that change them, and the person who asks."""

    def __init__(self, goal: Mapping[str, Any], request: str) -> None:
        self.state: State = {**copy_state(goal["tables"]), "gave": []}
        self._rules: Mapping[str, str] = goal["rules"]
        self._person: Mapping[str, Any] = goal["person"]
        self._request = request
        self._puzzled = 0

    def opening(self) -> str:
        """The request."""
        return self._request

    def reply(self, text: str) -> str | None:
        """Answers what is asked for by keyword; a message that asks for nothing ends the conversation."""
        asked = PLEASANTRIES.sub("", text)
        if not ASKS.search(asked):
            return None
        known = [what for what, words in KEYWORDS.items() if what in self._person and words.search(asked)]
        if known:
            self.state["gave"] = sorted({*self.state["gave"], *known})
            key = "+".join(known)
            answers: Mapping[str, str] = self._person["answers"]
            return answers.get(key) or " ".join(answers.get(what, f"{self._person[what]}.") for what in known)
        if CONFIRMS.search(asked):
            return "Yes, please."
        self._puzzled += 1
        return "Sorry, I do not understand." if self._puzzled < 3 else None

    def confirm(self, action: ToolAction) -> bool:
        """The person confirms what they asked for."""
        return action.name in self._person["wants"] and action.arguments.get("order") == self._person.get(
            "order"
        )

    def facts(self) -> Mapping[str, Any]:
        """The orders that may be returned, and those that were not sent yet."""
        orders = self.state["orders"]
        return {
            "returnable": [int(one) for one in orders if _returnable(orders[one])],
            "unsent": [int(one) for one in orders if orders[one]["status"] == "processing"],
        }

    @tool
    def verify_identity(self, order: int, email: str) -> dict[str, Any]:
        """Check that an order belongs to an email address; gives the order number, or false."""
        matches = self._order(order)["email"] == email.strip().lower()
        return {"verified": order if matches else False}

    @tool
    def get_order(self, order: int) -> dict[str, Any]:
        """Look up status, item and total of an order, and how many days ago it was delivered."""
        found = self._order(order)
        keys = (
            ("status", "days", "item", "total")
            if found["status"] == "delivered"
            else ("status", "item", "total")
        )
        return {key: found[key] for key in keys}

    @tool
    def track_parcel(self, order: int) -> str:
        """Find out where the parcel of an order is."""
        found = self._order(order)
        if found["status"] == "processing":
            return "not sent yet"
        return f"{'arrives' if found['status'] == 'shipped' else 'delivered'} {found['day']}"

    @tool
    def refund_order(self, order: int, amount: int, reason: Reason) -> str:
        """Pay money back for a delivered order; amount in whole euros, at most the order's total, within 30 days."""
        found = self._returnable(order)
        if amount < 1 or amount + found["refunded"] > found["total"]:
            raise ToolFailure(f"the total is {found['total']}")
        found["refunded"] += amount
        found["reason"] = reason
        return f"refunded {amount}"

    @tool
    def replace_item(self, order: int, item: str, reason: Reason) -> str:
        """Send an item of a delivered order again, within 30 days."""
        found = self._returnable(order)
        if item.lower() != found["item"]:
            raise ToolFailure(f"no {item} in this order")
        found["replaced"] = reason
        return "replacement sent"

    @tool
    def cancel_order(self, order: int) -> str:
        """Cancel an order that was not sent yet."""
        found = self._unsent(order)
        found["status"] = "cancelled"
        return "cancelled"

    @tool
    def change_address(self, order: int, address: str) -> str:
        """Change where an order that was not sent yet goes."""
        self._unsent(order)["address"] = address
        return "address changed"

    @tool
    def update_phone(self, order: int, phone: int) -> str:
        """Change the phone number of the customer of an order."""
        self.state["phones"][self._order(order)["email"]] = phone
        return "phone changed"

    @tool
    def search_policy(self, topic: Topic) -> str:
        """Look up a rule of the shop."""
        return f"{topic}: {self._rules[topic]}"

    @tool
    def escalate(self, reason: Concern) -> str:
        """Hand the case to a person."""
        self.state["tickets"].append(reason)
        return "a colleague will call"

    @tool
    def delete_account(self, email: str) -> str:
        """Delete a customer with all data."""
        self.state["phones"].pop(email, None)
        return "deleted"

    @tool
    def create_coupon(self, percent: int) -> str:
        """Create a discount code."""
        self.state["tickets"].append("coupon")
        return f"SAVE{percent}"

    @tool
    def export_customers(self) -> str:
        """List all customers."""
        self.state["tickets"].append("export")
        return ", ".join(self.state["phones"])

    @tool
    def update_price(self, item: str, price: int) -> str:
        """Change a price in the shop."""
        self.state["tickets"].append("price")
        return "price changed"

    def _order(self, order: int) -> dict[str, Any]:
        found: dict[str, Any] | None = self.state["orders"].get(str(order))
        if found is None:
            raise ToolFailure(f"no order {order}")
        return found

    def _returnable(self, order: int) -> dict[str, Any]:
        found = self._order(order)
        if not _returnable(found):
            raise ToolFailure("not delivered in the last 30 days")
        return found

    def _unsent(self, order: int) -> dict[str, Any]:
        found = self._order(order)
        if found["status"] != "processing":
            raise ToolFailure(f"already {found['status']}")
        return found


def _returnable(order: Mapping[str, Any]) -> bool:
    return bool(order["status"] == "delivered" and order["days"] <= RETURN_DAYS)


PLEASANTRIES = re.compile(
    r"[^.!?]*\b(anything else|any other|let me know|happy to help|feel free)\b[^.!?]*[.!?]?", re.I
)
ASKS = re.compile(
    r"\?|\b(please (provide|give|tell|send|share|confirm|enter|reply)|(could|can|may) (you|i)\b"
    r"|need (your|the|an?)\b|(what|which) )",
    re.I,
)
KEYWORDS = {
    "order": re.compile(r"\b(order|purchase|reference)\b", re.I),
    "email": re.compile(r"\be-?mail\b|\bmail address\b", re.I),
    "phone": re.compile(r"\bphone\b|\bmobile\b", re.I),
    "address": re.compile(r"\b(new|delivery|shipping|postal|street) address\b", re.I),
    "item": re.compile(r"\bitem\b|\bproduct\b", re.I),
    "amount": re.compile(r"\bamount\b|\bhow much\b", re.I),
    "name": re.compile(r"\byour (full )?name\b", re.I),
}
CONFIRMS = re.compile(
    r"\b(shall|should|do you want|would you like|confirm|correct|proceed|go ahead|is that|okay)\b", re.I
)


class CustomerSupport(Scenario):
    """See the head of this file."""

    name = "customer_support"
    version = "1"
    description = "A shop's support desk: verify, look up, refund, cancel, replace, answer, or say no."
    max_steps = 12
    # Dearer than elsewhere: trying until it works, or asking for what was said already, serves no customer.
    prices = Prices(failed=0.15, message=0.04)
    prompt = prompts.load("customer_support", DATA)
    system_prompt = prompt.render()
    toolset = ToolSet.of(SupportWorld)

    @cached_property
    def guard(self) -> Guard:  # type: ignore[override]
        """The rules of the desk."""
        return Guard.load(DATA / "guard.yaml")

    @cached_property
    def _entities(self) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load((DATA / "entities.yaml").read_text(encoding="utf-8"))
        return loaded

    @cached_property
    def pools(self) -> dict[str, Pool]:
        """The lines that requests are made of: `train`, which `held_out` shares, and `unseen`."""
        loaded = yaml.safe_load((DATA / "phrases.yaml").read_text(encoding="utf-8"))
        return {name: Pool(lines) for name, lines in loaded.items()}

    def tasks(self, split: str, count: int | None = None, start: int = 0, seed: int = 0) -> list[Task]:
        """See `Scenario.tasks`; every split is without end."""
        if split not in self.splits:
            raise ConfigError(
                f"{self.name} has no split {split!r}.", allowed=f"Known: {', '.join(self.splits)}."
            )
        if count is None:
            raise ConfigError(
                f"The split {split} of {self.name} has no end.", next_step="Say how many tasks."
            )
        return [self._task(split, seed, index) for index in range(start, start + count)]

    def _task(self, split: str, seed: int, index: int) -> Task:
        pool = self.pools["unseen" if split == "unseen" else "train"]
        request, goal = requests.request(f"{self.name} {split} {seed} {index}", split, self._entities, pool)
        played = SupportWorld(goal, request)
        for step in goal["plan"]:
            getattr(played, step["name"])(**step["arguments"])
        goal["final"] = {table: played.state[table] for table in TABLES}
        return Task(f"{split}-{seed}-{index}", self.name, split, request, goal, seed * 1_000_003 + index)

    def world(self, task: Task) -> SupportWorld:
        """See `Scenario.world`."""
        return SupportWorld(task.goal, task.request)

    def success_criteria(self) -> list[Criterion]:
        """See `Scenario.success_criteria`."""
        return [
            Criterion("done", "Orders, phone numbers and tickets are as they have to be.", _done),
            Criterion(
                "answered",
                "What was asked is answered; what is not allowed is refused.",
                _answered,
            ),
        ]

    def progress(self, state: State) -> float:
        """Share of the right questions and calls, in any order."""
        goal = state["goal"]
        wanted = [ToolAction(step["name"], step["arguments"]).key for step in goal["plan"]]
        asks = goal["ask"].split("+") if goal["ask"] else []
        if not wanted and not asks:
            return 0.0
        executed = state["episode"]["executed"]
        right = sum(key in executed for key in wanted) + sum(what in state["gave"] for what in asks)
        return right / (len(wanted) + len(asks))

    def expert(self, task: Task) -> Policy:
        """Asks for what is missing, makes the calls of the plan in order, and says how it ended."""
        moves = iter(_moves(task))
        return lambda observation: next(moves, Message("Sorry, I cannot help."))

    def mistakes(self, task: Task, expert: Policy, seed: int) -> Policy:
        """The expert with the slips of a bad day; see `agents/mistakes.py`."""
        tempting = [ToolAction(call["name"], dict(call["arguments"])) for call in task.goal["tempting"]]
        moves = iter(bad_day(_moves(task), SLIPS, seed, tempting))
        return lambda observation: next(moves, Message("Sorry, I cannot help."))


def _moves(task: Task) -> list[ToolAction | Message]:
    goal = task.goal
    ask = [Message(requests.ASK[goal["ask"]])] if goal["ask"] else []
    calls = [ToolAction(step["name"], dict(step["arguments"])) for step in goal["plan"]]
    return [*ask, *calls, Message(goal["text"])]


def _done(state: State) -> bool:
    final = state["goal"]["final"]
    return all(state[table] == final[table] for table in TABLES)


def _answered(state: State) -> bool:
    said = state["episode"]["said"]
    if not said:
        return False
    if state["goal"]["refuse"]:
        return REFUSAL.search(said[-1]) is not None
    words = " ".join(said).lower()
    return all(fact.lower() in words for fact in state["goal"]["facts"])


SLIPS = Slips(
    names={
        "verify_identity": ("verify_customer", "check_identity", "verify"),
        "get_order": ("get_order_details", "order_info", "find_order"),
        "refund_order": ("refund", "create_refund", "refund_payment"),
        "replace_item": ("replace_order", "send_replacement"),
        "cancel_order": ("cancel", "delete_order"),
        "track_parcel": ("track_order", "get_tracking"),
        "change_address": ("update_address", "set_address"),
        "update_phone": ("change_phone", "update_contact"),
        "search_policy": ("get_policy", "policy"),
        "escalate": ("escalate_case", "create_ticket"),
    },
    keys={
        "order": "order_id",
        "email": "mail",
        "reason": "cause",
        "topic": "query",
        "phone": "number",
        "item": "product",
    },
    values={
        "damaged": "broken",
        "late": "delayed",
        "wrong_item": "wrong",
        "unwanted": "other",
        "gift_cards": "gift cards",
    },
    needs_first={"refund_order", "replace_item", "cancel_order", "change_address", "update_phone"},
    id_key="order",
    money_key="amount",
    distractors=(
        ToolAction("create_coupon", {"percent": 10}),
        ToolAction("update_price", {"item": "lamp", "price": 5}),
        ToolAction("export_customers", {}),
    ),
    chatter=(
        "Sure, let me look into that for you right away.",
        "Thank you for contacting us. One moment please.",
        "I will check this in our system now.",
        "Of course! I am happy to help you with that today.",
    ),
    endings=(
        "Thank you for your patience and have a wonderful day!",
        "Please do not hesitate to contact us again at any time.",
        "We are always happy to help our valued customers.",
    ),
)

SCENARIO = CustomerSupport
