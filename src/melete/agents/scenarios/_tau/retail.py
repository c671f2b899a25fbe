"""The shop of tau-bench: 16 tools over users, orders and products, written from their schemas and the policy.

Where the policy leaves the form of a record open, recorded results of the original shop decide (the example
dialogues in the data): the status `pending (item modified)`, one `payment_history` entry for a price difference
even when it is 0, item lists of a return or an exchange sorted, each for itself. Amounts are rounded to cents. A
refund of a cancelled order is what was paid less what was refunded, per payment method; a gift card is credited at
once, other methods outside this database. Limits: an exchange moves no money yet (the policy says nothing of when),
products never run out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Literal

from melete.actions.action import ToolAction
from melete.actions.tools import ToolFailure, tool
from melete.agents.scenarios._tau.journal import Record, cents
from melete.agents.scenarios._tau.world import TauWorld

TABLES = ("users", "orders", "products")
MODIFIED = "pending (item modified)"


class RetailWorld(TauWorld):
    """One episode in the shop: its tools as methods, its database as a journal, its customer as a script."""

    writes = frozenset(
        {
            "cancel_pending_order", "exchange_delivered_order_items", "modify_pending_order_address",
            "modify_pending_order_items", "modify_pending_order_payment", "modify_user_address",
            "return_delivered_order_items",
        }
    )  # fmt: skip

    def identity(self) -> str:
        """Name and email if the instruction has one, else name and zip code."""
        user = self.journal.tables["users"][self.goal["user_id"]]
        name = f"{user['name']['first_name']} {user['name']['last_name']}"
        if user["email"] in self.goal["instruction"]:
            return f"My name is {name} and my email is {user['email']}."
        return f"I am {name} and my zip code is {user['address']['zip']}. I do not remember my email."

    def wish(self, action: ToolAction) -> str:
        """Names items by their options, because a customer knows no item ids."""
        about = action.arguments
        words = action.name.replace("_", " ")
        if "order_id" in about:
            words += f" {about['order_id']}"
        if "item_ids" in about:
            old = [self._item(one) for one in about["item_ids"]]
            new = [self._item(one) for one in about.get("new_item_ids", [])]
            swaps = [f"{a} to {b}" for a, b in zip(old, new, strict=True)] if new else old
            words += ": " + "; ".join(swaps)
        rest = [
            f"{key.replace('_', ' ')} {value}"
            for key, value in about.items()
            if key not in ("order_id", "item_ids", "new_item_ids", "user_id") and value
        ]
        return f"I want to {words}{', ' if rest else ''}{', '.join(rest)}."

    @tool
    def cancel_pending_order(
        self, order_id: str, reason: Literal["no longer needed", "ordered by mistake"]
    ) -> Record:
        """Cancel a pending order and refund it; a gift card gets its refund at once. Needs the user's yes.

        Args:
            order_id: Such as '#W0000000', with the '#'.
            reason: Why, in the user's words as one of the two.
        """
        order = self._order(order_id)
        _require_status(order, "pending", "cancelled")
        order = self.journal.edit("orders", order_id)
        for method, amount in _paid(order).items():
            self._pay(order, method, -amount)
        order["status"] = "cancelled"
        order["cancel_reason"] = reason
        return order

    @tool
    def exchange_delivered_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Record:
        """Exchange items of a delivered order for others of the same products, once. Needs the user's yes.

        Args:
            order_id: Such as '#W0000000', with the '#'.
            item_ids: Items to give back; an item ordered twice may stand here twice.
            new_item_ids: Items to get instead, in the same order.
            payment_method_id: Pays or receives the price difference, such as 'gift_card_0000000'.
        """
        order = self._order(order_id)
        _require_status(order, "delivered", "exchanged")
        _, difference = self._priced_swaps(order, item_ids, new_item_ids, payment_method_id)
        order = self.journal.edit("orders", order_id)
        order["status"] = "exchange requested"
        order["exchange_items"] = sorted(item_ids)
        order["exchange_new_items"] = sorted(new_item_ids)  # as recorded: each list for itself
        order["exchange_payment_method_id"] = payment_method_id
        order["exchange_price_difference"] = difference
        return order

    @tool
    def find_user_id_by_email(self, email: str) -> str:
        """Find the user id that belongs to an email address.

        Args:
            email: Such as 'something@example.com'.
        """
        return self._find(lambda user: user["email"].lower() == email.lower())

    @tool
    def find_user_id_by_name_zip(self, first_name: str, last_name: str, zip: str) -> str:
        """Find a user id by name and zip code, for users who cannot be found by email.

        Args:
            first_name: Such as 'John'.
            last_name: Such as 'Doe'.
            zip: Zip code of the user's own address, such as '12345'.
        """
        wanted = (first_name.lower(), last_name.lower(), zip)
        return self._find(lambda user: _name_zip(user) == wanted)

    @tool
    def get_order_details(self, order_id: str) -> Record:
        """Read an order: status, items, address, payments.

        Args:
            order_id: Such as '#W0000000', with the '#'.
        """
        return self._order(order_id)

    @tool
    def get_product_details(self, product_id: str) -> Record:
        """Read a product: its items with options, price and whether they are available.

        Args:
            product_id: Such as '6086499569'; a product id is no item id.
        """
        product = self.journal.get("products", product_id)
        if product is None:
            raise ToolFailure("product not found")
        return product

    @tool
    def get_user_details(self, user_id: str) -> Record:
        """Read a user's profile: address, payment methods, orders.

        Args:
            user_id: Such as 'sara_doe_496'.
        """
        return self.user(user_id)

    @tool
    def list_all_product_types(self) -> dict[str, str]:
        """List the names and product ids of the 50 product types."""
        products = self.journal.tables["products"].values()
        return {p["name"]: p["product_id"] for p in sorted(products, key=lambda p: str(p["name"]))}

    @tool
    def modify_pending_order_address(
        self, order_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
    ) -> Record:
        """Change the shipping address of a pending order. Needs the user's yes.

        Args:
            order_id: Such as '#W0000000', with the '#'.
            address1: First line, such as '123 Main St'.
            address2: Second line, such as 'Apt 1', or ''.
            city: Such as 'San Francisco'.
            state: Such as 'CA'.
            country: Such as 'USA'.
            zip: Such as '12345'.
        """
        _require_status(self._order(order_id), "pending", "modified")
        order = self.journal.edit("orders", order_id)
        order["address"] = _address(address1, address2, city, state, country, zip)
        return order

    @tool
    def modify_pending_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Record:
        """Change items of a pending order to others of the same products, once. Needs the user's yes.

        Args:
            order_id: Such as '#W0000000', with the '#'.
            item_ids: Items to replace; an item ordered twice may stand here twice.
            new_item_ids: Items to get instead, in the same order.
            payment_method_id: Pays or receives the price difference, such as 'gift_card_0000000'.
        """
        order = self._order(order_id)
        _require_status(order, "pending", "modified")
        swaps, difference = self._priced_swaps(order, item_ids, new_item_ids, payment_method_id)
        order = self.journal.edit("orders", order_id)
        waiting = list(order["items"])
        for old, new in swaps:
            item = next(item for item in waiting if item["item_id"] == old["item_id"])
            waiting = [other for other in waiting if other is not item]
            item.update(item_id=new["item_id"], price=new["price"], options=dict(new["options"]))
        self._pay(order, payment_method_id, difference)
        order["status"] = MODIFIED
        return order

    @tool
    def modify_pending_order_payment(self, order_id: str, payment_method_id: str) -> Record:
        """Change how a pending order is paid. Needs the user's yes.

        Args:
            order_id: Such as '#W0000000', with the '#'.
            payment_method_id: Pays the order from now on, such as 'gift_card_0000000'.
        """
        order = self._order(order_id)
        _require_status(order, "pending", "modified")
        paid = _paid(order)
        if payment_method_id in paid:
            raise ToolFailure("the new payment method should be different from the current one")
        total = cents(sum(paid.values()))
        self._require_funds(order["user_id"], payment_method_id, total)
        order = self.journal.edit("orders", order_id)
        self._pay(order, payment_method_id, total)
        for method, amount in paid.items():
            self._pay(order, method, -amount)
        return order

    @tool
    def modify_user_address(
        self, user_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
    ) -> Record:
        """Change a user's own address. Needs the user's yes.

        Args:
            user_id: Such as 'sara_doe_496'.
            address1: First line, such as '123 Main St'.
            address2: Second line, such as 'Apt 1', or ''.
            city: Such as 'San Francisco'.
            state: Such as 'CA'.
            country: Such as 'USA'.
            zip: Such as '12345'.
        """
        self.user(user_id)
        user = self.journal.edit("users", user_id)
        user["address"] = _address(address1, address2, city, state, country, zip)
        return user

    @tool
    def return_delivered_order_items(
        self, order_id: str, item_ids: list[str], payment_method_id: str
    ) -> Record:
        """Request the return of items of a delivered order, once. Needs the user's yes.

        Args:
            order_id: Such as '#W0000000', with the '#'.
            item_ids: Items to return; an item ordered twice may stand here twice.
            payment_method_id: Receives the refund: the original payment method or a gift card.
        """
        order = self._order(order_id)
        _require_status(order, "delivered", "returned")
        method = self._method(order["user_id"], payment_method_id)
        if payment_method_id not in _paid(order) and method["source"] != "gift_card":
            raise ToolFailure("payment method should be either the original payment method or a gift card")
        _require_items(order, item_ids, "returned")
        order = self.journal.edit("orders", order_id)
        order["status"] = "return requested"
        order["return_items"] = sorted(item_ids)
        order["return_payment_method_id"] = payment_method_id
        return order

    def _item(self, item_id: str) -> str:
        for product in self.journal.tables["products"].values():
            if item_id in product["variants"]:
                options = ", ".join(f"{k} {v}" for k, v in product["variants"][item_id]["options"].items())
                return f"{product['name']} ({options})"
        return item_id

    def _order(self, order_id: str) -> Record:
        order = self.journal.get("orders", order_id)
        if order is None:
            raise ToolFailure("order not found")
        return order

    def _find(self, matches: Callable[[Record], bool]) -> str:
        for user_id in self.journal.tables["users"]:
            if matches(self.user(user_id)):
                return user_id
        raise ToolFailure("user not found")

    def _method(self, user_id: str, payment_method_id: str) -> Record:
        method: Record | None = self.user(user_id)["payment_methods"].get(payment_method_id)
        if method is None:
            raise ToolFailure("payment method not found")
        return method

    def _require_funds(self, user_id: str, payment_method_id: str, amount: float) -> None:
        method = self._method(user_id, payment_method_id)
        if method["source"] == "gift_card" and method["balance"] < amount:
            raise ToolFailure("insufficient gift card balance to pay the amount")

    def _swaps(self, order: Record, old_ids: list[str], new_ids: list[str]) -> list[tuple[Record, Record]]:
        """Each item of the order with the variant that replaces it, checked for product and availability."""
        if len(old_ids) != len(new_ids):
            raise ToolFailure("the number of items to be exchanged should match")
        _require_items(order, old_ids, "exchanged")
        waiting, swaps = list(order["items"]), []
        for old_id, new_id in zip(old_ids, new_ids, strict=True):
            item = next(item for item in waiting if item["item_id"] == old_id)
            waiting = [other for other in waiting if other is not item]
            variant = self.journal.tables["products"][item["product_id"]]["variants"].get(new_id)
            if variant is None or not variant["available"]:
                raise ToolFailure(f"new item {new_id} not found or available")
            swaps.append((item, variant))
        return swaps

    def _priced_swaps(
        self, order: Record, old_ids: list[str], new_ids: list[str], payment_method_id: str
    ) -> tuple[list[tuple[Record, Record]], float]:
        """The swaps, and the difference in price, which the payment method can pay."""
        swaps = self._swaps(order, old_ids, new_ids)
        difference = cents(sum(new["price"] - old["price"] for old, new in swaps))
        self._require_funds(order["user_id"], payment_method_id, difference)
        return swaps, difference

    def _pay(self, order: Record, payment_method_id: str, amount: float) -> None:
        """Books a payment (positive) or a refund; a gift card's balance moves at once. `order` is being edited."""
        order["payment_history"].append(
            {
                "transaction_type": "payment" if amount > 0 else "refund",
                "amount": cents(abs(amount)),
                "payment_method_id": payment_method_id,
            }
        )
        if amount and self._method(order["user_id"], payment_method_id)["source"] == "gift_card":
            card = self.journal.edit("users", order["user_id"])["payment_methods"][payment_method_id]
            card["balance"] = cents(card["balance"] - amount)


def _require_status(order: Record, status: str, done: str) -> None:
    if order["status"] != status:
        raise ToolFailure(f"non-{status} order cannot be {done}")


def _require_items(order: Record, item_ids: list[str], done: str) -> None:
    missing = Counter(item_ids) - Counter(item["item_id"] for item in order["items"])
    if missing:
        raise ToolFailure(f"item {next(iter(missing))} to be {done} is not in the order (often enough)")
    if not item_ids:
        raise ToolFailure(f"no items to be {done}")


def _paid(order: Record) -> dict[str, float]:
    """What each payment method has paid and not got back, in order of first use."""
    paid: dict[str, float] = defaultdict(float)
    for entry in order["payment_history"]:
        sign = 1 if entry["transaction_type"] == "payment" else -1
        paid[entry["payment_method_id"]] += sign * entry["amount"]
    return {method: cents(amount) for method, amount in paid.items() if cents(amount)}


def _address(address1: str, address2: str, city: str, state: str, country: str, zip: str) -> Record:
    return {
        "address1": address1,
        "address2": address2,
        "city": city,
        "state": state,
        "country": country,
        "zip": zip,
    }


def _name_zip(user: Record) -> tuple[str, str, str]:
    name = user["name"]
    return name["first_name"].lower(), name["last_name"].lower(), user["address"]["zip"]
