"""Orders of a shop: where one is, and cancelling it."""

from __future__ import annotations

from melete.datasets.toolcalls.drawing import Chain, Draw, Missing, Need, Step, Tool, tool
from melete.datasets.toolcalls.words import DAYS, GOODS

STATES = ["packed", "shipped", "on its way", "delivered", "delayed", "waiting for payment"]


def _status(draw: Draw) -> tuple[Tool, str]:
    key = draw.mostly("order_id", "number")
    return tool(
        draw.mostly("order_status", "track_order", "get_order"), "Status of an order.", **{key: "string"}
    ), key


def need(draw: Draw) -> Need:
    """Track an order, or cancel one."""
    order = _number(draw)
    if draw.pick([False, False, True]):
        return _cancel(draw, order)
    status, key = _status(draw)
    state, day = draw.pick(STATES), draw.pick(DAYS)
    ask = draw.pick(
        [
            "Where is my order {o}?",
            "What is the status of order {o}?",
            "Track order {o}, please.",
            "Has order {o} been shipped?",
            "When will order {o} arrive?",
            "I am waiting for order {o}. Where is it?",
            "Can you check on my order {o}?",
        ]
    ).format(o=order)
    answer = draw.pick(
        [
            f"Order {order} is {state} and due on {day}.",
            f"It is {state}. Expect it on {day}.",
            f"Your order {order}: {state}, {day}.",
        ]
    )
    missing = Missing(
        draw.pick(["Where is my order?", "Has my parcel been shipped?", "Please track my order."]),
        draw.pick(["What is the order number?", "Please give me the order number."]),
        draw.pick([f"It is {order}.", f"{order}.", f"Order {order}."]),
    )
    failure = ({"error": f"no order {order}"}, f"I found no order {order}. Please check the number.")
    return Need(
        "track orders",
        ask,
        Step(status, {key: order}, {"state": state, "due": day}),
        answer,
        failure,
        missing,
    )


def chain(draw: Draw) -> Chain:
    """Look whether an order has left; cancel it if not."""
    status, key = _status(draw)
    cancel = tool("cancel_order", "Cancel an order.", **{key: "string"})
    order, left = _number(draw), draw.chance(0.5)
    steps = [Step(status, {key: order}, {"state": "shipped" if left else "packed"})]
    ask = draw.pick(
        [
            "Cancel order {o} if it has not been shipped.",
            "If order {o} is still here, cancel it.",
            "Has order {o} left? If not, I want to cancel it.",
        ]
    ).format(o=order)
    if left:
        return Chain(ask, steps, f"Order {order} has been shipped already, so I did not cancel it.")
    steps.append(Step(cancel, {key: order}, {"cancelled": True}))
    return Chain(ask, steps, f"Order {order} was only packed, so I cancelled it.")


def _cancel(draw: Draw, order: str) -> Need:
    cancel = tool(
        draw.mostly("cancel_order", "stop_order"), "Cancel an order.", order_id="string", refund="boolean"
    )
    good, refund = draw.pick(GOODS), draw.pick([True, False])
    wish = "and refund me" if refund else "without a refund"
    ask = draw.pick(
        [
            "Cancel order {o} {w}.",
            "Please cancel my order {o} of the {g} {w}.",
            "I do not want the {g} from order {o}. Cancel it {w}.",
        ]
    ).format(o=order, g=good, w=wish)
    answer = f"Order {order} is cancelled" + (", and the money comes back to you." if refund else ".")
    failure = ({"error": "already shipped"}, f"Order {order} was shipped already, so it cannot be cancelled.")
    step = Step(cancel, {"order_id": order, "refund": refund}, {"cancelled": True})
    return Need("cancel orders", ask, step, answer, failure)


def _number(draw: Draw) -> str:
    return f"{draw.pick('ABCDEKLMNPRT')}{draw.number(100, 9999)}"
