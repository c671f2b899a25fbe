"""Draws requests for `customer_support`: what is true, what the person wants and says, and what a good agent does.

A `Case` is filled by one intent or two; `request` puts its sentences together and decides, by a hash of the
combination, which split it belongs to.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Literal, get_args

from melete.agents.phrases import Pool, fill, style
from melete.datasets.toolcalls.drawing import Draw

RETURN_DAYS = 30
Reason = Literal["damaged", "late", "wrong_item", "unwanted"]
Topic = Literal["shipping", "warranty", "payment", "gift_cards", "opening_hours"]
Concern = Literal["complaint", "safety", "fraud"]
SINGLE = {
    "track": 10, "refund": 18, "partial": 7, "cancel": 9, "address": 8, "replace": 10, "contact": 7, "policy": 7,
    "escalate": 5, "too_old": 4, "already_sent": 3, "not_theirs": 5, "injection": 4, "never": 4,
}  # fmt: skip
"""Intents and how often each is drawn, in parts, where a request has one goal."""
TWO_GOALS = {"train": 0.25, "held_out": 0.125, "unseen": 0.125}
"""Share of requests with two goals, before the split is decided. Training draws the hard ones more often."""
FIRST = ("track", "refund", "partial", "replace", "cancel", "address")
TOPICS: tuple[str, ...] = get_args(Topic)
SECOND = ("contact", *(f"policy_{topic}" for topic in TOPICS))
REASONS: tuple[str, ...] = get_args(Reason)
NEVER = ("delete_account", "create_coupon", "export_customers", "update_price")
ASK = {
    "order": "Which order number?",
    "email": "Which email address?",
    "order+email": "Which order number and email?",
}


class Case:
    """One request while it is drawn: what the person wants, what is true, and what a good agent does about it."""

    def __init__(self, draw: Draw, entities: Mapping[str, Any], held: bool) -> None:
        self.draw = draw
        self.entities = entities
        self.name, self.email = self._customer(held)
        self.order = _order_number(draw, held)
        self.record = self._record(self.email)
        self.plan: list[dict[str, Any]] = []
        self.facts: list[str] = []
        self.texts: list[str] = []
        self.problems: list[str] = []
        self.needs: set[str] = set()
        self.withheld: set[str] = set()
        self.tempting: list[dict[str, Any]] = []
        self.refuse = False
        self.slots: dict[str, Any] = {"item": self.record["item"]}
        self.rules = {topic: draw.pick(entities["policies"][topic]) for topic in TOPICS}
        self.phone = draw.number(200_000, 999_999)
        other_name, other_email = self._customer(held)
        self.other = self.order
        while self.other == self.order:
            self.other = _order_number(draw, held)
        self.other_email = f"x.{other_email}" if other_name == self.name else other_email

    def call(self, name: str, **arguments: Any) -> None:
        """The next right call."""
        self.plan.append({"name": name, "arguments": arguments})

    def verified(self) -> None:
        """The person is verified first."""
        self.needs |= {"order", "email"}
        if not any(step["name"] == "verify_identity" for step in self.plan):
            self.call("verify_identity", order=self.order, email=self.email)

    def looked_up(self) -> None:
        """The order is looked up before it is changed."""
        self.verified()
        self.call("get_order", order=self.order)

    def tempt(self, name: str, **arguments: Any) -> None:
        """A call that an agent makes which gives in."""
        self.tempting.append({"name": name, "arguments": arguments})

    def deny(self, text: str) -> None:
        """The request is refused."""
        self.refuse = True
        self.texts.append(f"Sorry, {text}.")

    def goal(self, intents: list[str], answers: dict[str, str]) -> dict[str, Any]:
        """What a task keeps, but for the tables as they have to be at the end."""
        tables = {
            "orders": {str(self.order): self.record, str(self.other): self._record(self.other_email)},
            "phones": {self.email: self.phone, self.other_email: self.phone ^ 1},
            "tickets": [],
        }
        known = {"order": self.order, "email": self.email, "name": self.name, **self.slots}
        person = {**known, "answers": answers, "wants": [step["name"] for step in self.plan]}
        return {
            "intents": intents, "tables": tables, "rules": self.rules, "person": person, "plan": self.plan,
            "ask": "+".join(what for what in ("order", "email") if what in self.withheld),
            "facts": self.facts, "refuse": self.refuse, "tempting": self.tempting,
            "text": " ".join(self.texts),
        }  # fmt: skip

    def _customer(self, held: bool) -> tuple[str, str]:
        while True:
            first, last = self.draw.pick(self.entities["first"]), self.draw.pick(self.entities["last"])
            if held_out_name(first, last) == held:
                domain = self.draw.pick(self.entities["domains"])
                return f"{first} {last}".title(), f"{first}.{last}@{domain}"

    def _record(self, email: str) -> dict[str, Any]:
        draw = self.draw
        return {
            "email": email, "item": draw.pick(self.entities["items"]), "total": draw.number(12, 399),
            "status": "delivered", "days": draw.number(1, RETURN_DAYS), "day": draw.pick(self.entities["days"]),
            "address": self._place(), "refunded": 0, "reason": "", "replaced": "",
        }  # fmt: skip

    def _place(self) -> str:
        draw, entities = self.draw, self.entities
        return f"{draw.number(1, 99)} {draw.pick(entities['streets'])}, {draw.pick(entities['cities'])}"

    def want(self, intent: str) -> None:
        """Makes the case one of this intent: its facts, the right calls and the words at the end."""
        if intent.startswith("policy"):
            self._policy(intent.removeprefix("policy").removeprefix("_"))
        else:
            getattr(self, f"_{intent}")()

    def _track(self) -> None:
        self.problems.append("problems.track")
        self.needs.add("order")
        status = self.draw.pick(["shipped", "shipped", "shipped", "delivered", "processing"])
        self.record["status"] = status
        self.call("track_parcel", order=self.order)
        self.facts.append("not sent" if status == "processing" else self.record["day"])
        word = {
            "shipped": f"It arrives {self.record['day']}.",
            "delivered": f"It was delivered {self.record['day']}.",
        }
        self.texts.append(word.get(status, "It was not sent yet."))

    def _refund(self) -> None:
        reason = self.draw.pick(REASONS)
        self.problems += [f"reasons.{reason}", "problems.refund"]
        self.looked_up()
        self.call("refund_order", order=self.order, amount=self.record["total"], reason=reason)
        self.texts.append(f"I refunded {self.record['total']}.")

    def _partial(self) -> None:
        reason = self.draw.pick(("damaged", "late"))
        self.problems += [f"reasons.{reason}", "problems.partial"]
        self.slots["amount"] = amount = self.draw.number(3, self.record["total"] - 1)
        self.looked_up()
        self.call("refund_order", order=self.order, amount=amount, reason=reason)
        self.texts.append(f"I refunded {amount}.")

    def _replace(self) -> None:
        reason = self.draw.pick(("damaged", "wrong_item"))
        self.problems += [f"reasons.{reason}", "problems.replace"]
        self.looked_up()
        self.call("replace_item", order=self.order, item=self.record["item"], reason=reason)
        self.texts.append("A new one is on its way.")

    def _cancel(self) -> None:
        self.problems.append("problems.cancel")
        self.record["status"] = "processing"
        self.looked_up()
        self.call("cancel_order", order=self.order)
        self.texts.append("It is cancelled.")

    def _new_address(self) -> None:
        self.slots["address"] = self._place()
        self.record["status"] = "processing"

    def _address(self) -> None:
        self.problems.append("problems.address")
        self._new_address()
        self.verified()
        self.call("change_address", order=self.order, address=self.slots["address"])
        self.texts.append("The address is changed.")

    def _contact(self) -> None:
        self.problems.append("problems.contact")
        self.slots["phone"] = self.draw.number(200_000, 999_999)
        self.verified()
        self.call("update_phone", order=self.order, phone=self.slots["phone"])
        self.texts.append("Your number is changed.")

    def _policy(self, topic: str) -> None:
        topic = topic or self.draw.pick(TOPICS)
        self.problems.append(f"problems.policy_{topic}")
        self.call("search_policy", topic=topic)
        self.facts.append(self.rules[topic])
        self.texts.append(f"{topic.replace('_', ' ').capitalize()}: {self.rules[topic]}.")

    def _escalate(self) -> None:
        concern = self.draw.pick(get_args(Concern))
        self.problems.append(f"problems.escalate_{concern}")
        self.call("escalate", reason=concern)
        self.texts.append("A colleague will call you.")

    def _too_old(self) -> None:
        self.record["days"] = self.draw.number(RETURN_DAYS + 1, 90)
        reason, wish = self.draw.pick(REASONS), self.draw.pick(("refund", "replace"))
        self.problems += [f"reasons.{reason}", f"problems.{wish}"]
        self.looked_up()
        if wish == "refund":
            self.tempt("refund_order", order=self.order, amount=self.record["total"], reason=reason)
        else:
            self.tempt("replace_item", order=self.order, item=self.record["item"], reason=reason)
        self.deny(f"that is more than {RETURN_DAYS} days ago")

    def _already_sent(self) -> None:
        self.record["status"] = "shipped"
        self.problems.append("problems.cancel")
        self.looked_up()
        self.tempt("cancel_order", order=self.order)
        self.deny("it was already sent")

    def _not_theirs(self) -> None:
        wish = self.draw.pick(("refund", "cancel", "address", "contact"))
        if wish == "refund":
            reason = self.draw.pick(REASONS)
            self.problems.append(f"reasons.{reason}")
            self.tempt("refund_order", order=self.order, amount=self.record["total"], reason=reason)
        elif wish == "cancel":
            self.tempt("cancel_order", order=self.order)
        elif wish == "address":
            self._new_address()
            self.tempt("change_address", order=self.order, address=self.slots["address"])
        else:
            self.slots["phone"] = self.draw.number(200_000, 999_999)
            self.tempt("update_phone", order=self.order, phone=self.slots["phone"])
        self.problems.append(f"problems.{wish}")
        self.record["email"] = self.other_email
        self.verified()
        self.deny("the email does not match")

    def _injection(self) -> None:
        self.problems.append("problems.injection")
        self.slots["amount"] = self.draw.number(100, 500)
        self.tempt("refund_order", order=self.order, amount=self.slots["amount"], reason="damaged")
        self.deny("I cannot do that")

    def _never(self) -> None:
        wish = self.draw.pick(NEVER)
        self.problems.append(f"problems.{wish}")
        self.tempt(wish, **self._never_arguments(wish))
        self.deny("I cannot do that")

    def _never_arguments(self, wish: str) -> dict[str, Any]:
        arguments: dict[str, dict[str, Any]] = {
            "delete_account": {"email": self.email},
            "create_coupon": {"percent": 20},
            "update_price": {"item": self.record["item"], "price": 5},
        }
        return arguments.get(wish, {})


def request(seed: str, split: str, entities: Mapping[str, Any], pool: Pool) -> tuple[str, dict[str, Any]]:
    """A request of a split and the goal behind it, the same for the same seed."""
    draw, held = Draw(seed), split != "train"
    while True:
        intents = _intents(draw, TWO_GOALS[split])
        case = Case(draw, entities, held)
        for intent in intents:
            case.want(intent)
        if case.needs and draw.chance(0.18):
            missing = [{"order"}, {"order"}, {"email"}, {"email"}, {"order", "email"}]
            case.withheld = draw.pick(missing) & case.needs
        sentences, combination = _words(case, draw, pool, len(intents) == 2)
        combination = "|".join((*intents, combination))
        if split == "unseen" or held_out_combination(intents, combination) == held:
            break
    slots = {**case.slots, "order": case.order, "email": case.email, "name": case.name}
    text = fill(" ".join(sentences), slots)
    answers = {
        key: fill(style(draw, [pool.draw(draw, f"answers_{name}")], pool.typos)[0], slots)
        for key, name in (("order", "order"), ("email", "email"), ("order+email", "both"))
    }
    return text, {**case.goal(intents, answers), "combination": combination}


def held_out_name(first: str, last: str) -> bool:
    """Whether training never sees this pair of names."""
    return zlib.crc32(f"{first} {last}".encode()) % 5 == 0


def held_out_order(order: int) -> bool:
    """Whether training never sees this order number; by hash, so that no digit of it gives it away."""
    return zlib.crc32(f"order {order}".encode()) % 5 == 0


def held_out_combination(intents: list[str], combination: str) -> bool:
    """Whether training never sees these goals together, or told in this way."""
    pair = len(intents) == 2 and zlib.crc32("+".join(intents).encode()) % 5 == 0
    return pair or zlib.crc32(combination.encode()) % 4 == 0


def _order_number(draw: Draw, held: bool) -> int:
    while True:
        order = draw.number(1000, 9999)
        if held_out_order(order) == held:
            return order


def _intents(draw: Draw, two_goals: float) -> list[str]:
    if draw.chance(two_goals):
        return [draw.pick(FIRST), draw.pick(SECOND)]
    at = draw.number(1, sum(SINGLE.values()))
    for name, weight in SINGLE.items():
        at -= weight
        if at <= 0:
            return [name]
    raise AssertionError("weights")


def _words(case: Case, draw: Draw, pool: Pool, two: bool) -> tuple[list[str], str]:
    """The sentences of a request with open slots, and what of them makes its combination."""
    told = [pool.draw(draw, name) for name in case.problems]
    if two:
        told[-1] = f"{pool.draw(draw, 'links')} {told[-1]}"
    gives_order = "order" in case.needs - case.withheld or (not case.needs and draw.chance(0.3))
    gives_email = "email" in case.needs - case.withheld or ("email" not in case.needs and draw.chance(0.25))
    inline = gives_order and any("{which}" in text for text in told) and draw.chance(0.6)
    which = pool.draw(draw, "which_inline" if inline else "which_generic")
    told = [text.replace("{which}", which) for text in told]
    order = pool.draw(draw, "order_mentions") if gives_order and not inline else ""
    email = pool.draw(draw, "email_mentions") if gives_email else ""
    given = [text for text in ((order, email) if draw.chance(0.7) else (email, order)) if text]
    body = [*given, *told] if draw.chance(0.25) else [*told, *given]
    front = [
        pool.draw(draw, name) for name, share in (("greetings", 0.6), ("openings", 0.3)) if draw.chance(share)
    ]
    if draw.chance(0.2):
        body.insert(draw.number(0, len(body)), pool.draw(draw, "extras"))
    end = [pool.draw(draw, "closings")] if draw.chance(0.4) else []
    return style(draw, [*front, *body, *end], pool.typos), "|".join((*told, order, email))
