"""Trains between cities: when one leaves, and a ticket for it."""

from __future__ import annotations

from melete.datasets.toolcalls.drawing import Chain, Draw, Missing, Need, Step, Tool, tool
from melete.datasets.toolcalls.words import CITIES, DAYS, HOURS


def _find(draw: Draw) -> tuple[Tool, str, str]:
    source, target = draw.mostly(("from", "to"), ("origin", "destination"))
    name = draw.mostly("find_train", "train_times")
    return (
        tool(name, "Next train between two cities.", **{source: "string", target: "string", "day": DAYS}),
        source,
        target,
    )


def need(draw: Draw) -> Need:
    """When a train leaves."""
    find, source, target = _find(draw)
    (one, other), day = draw.some(CITIES, 2), draw.pick(DAYS)
    result = {"leaves": draw.pick(HOURS), "price": draw.number(9, 140)}
    ask = draw.pick(
        [
            "When does a train go from {a} to {b} on {d}?",
            "Is there a train from {a} to {b} on {d}?",
            "Trains from {a} to {b}, {d}.",
            "I must travel from {a} to {b} on {d}. When is a train?",
            "Find me a train to {b} from {a} on {d}.",
        ]
    ).format(a=one, b=other, d=day)
    answer = draw.pick(
        [
            f"A train from {one} to {other} leaves on {day} at {result['leaves']} and costs {result['price']} euros.",
            f"On {day} at {result['leaves']}, for {result['price']} euros.",
        ]
    )
    missing = Missing(
        draw.pick(["I need a train to {b} on {d}.", "When is a train to {b} on {d}?"]).format(b=other, d=day),
        draw.pick(["From which city?", "Where do you start?"]),
        draw.pick([f"From {one}.", f"{one}."]),
    )
    failure = ({"error": "no train"}, f"There is no train from {one} to {other} on {day}.")
    return Need(
        "look up trains",
        ask,
        Step(find, {source: one, target: other, "day": day}, result),
        answer,
        failure,
        missing,
    )


def chain(draw: Draw) -> Chain:
    """Find a train, then buy the ticket."""
    find, source, target = _find(draw)
    buy = tool("buy_ticket", "Buy a train ticket.", train="string", passengers="integer")
    (one, other), day, people = draw.some(CITIES, 2), draw.pick(DAYS), draw.number(1, 5)
    train, hour = f"{draw.pick('ABR')}{draw.number(10, 99)}", draw.pick(HOURS)
    word = "a ticket" if people == 1 else f"{people} tickets"
    ask = draw.pick(
        [
            "Buy {w} for the train from {a} to {b} on {d}.",
            "I need {w} from {a} to {b} on {d}.",
            "Get me {w} to {b} from {a}, {d}.",
        ]
    ).format(w=word, a=one, b=other, d=day)
    steps = [
        Step(find, {source: one, target: other, "day": day}, {"train": train, "leaves": hour}),
        Step(buy, {"train": train, "passengers": people}, {"bought": True}),
    ]
    return Chain(ask, steps, f"I bought {word} for train {train} to {other}. It leaves on {day} at {hour}.")
