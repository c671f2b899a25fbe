"""Tables in restaurants: find one, book one."""

from __future__ import annotations

from melete.datasets.toolcalls.drawing import Chain, Draw, Missing, Need, Step, Tool, tool
from melete.datasets.toolcalls.words import CITIES, DAYS, HOURS

KITCHENS = [
    "Italian",
    "Indian",
    "Thai",
    "Greek",
    "Mexican",
    "French",
    "Chinese",
    "Japanese",
    "Spanish",
    "Turkish",
]
NAMES = [
    "Luna",
    "Olive Tree",
    "Blue Door",
    "Saffron",
    "Old Mill",
    "Harbour",
    "Red Lantern",
    "Corner",
    "Garden",
    "Lemon",
]


def _book(draw: Draw) -> tuple[Tool, str]:
    key = draw.mostly("people", "guests")
    name = draw.mostly("book_table", "reserve_table")
    return tool(name, "Book a table.", restaurant="string", day=DAYS, time="string", **{key: "integer"}), key


def need(draw: Draw) -> Need:
    """Book a table."""
    book, key = _book(draw)
    name, day, hour, people = draw.pick(NAMES), draw.pick(DAYS), draw.pick(HOURS), draw.number(2, 9)
    ask = draw.pick(
        [
            "Book a table at {n} on {d} at {h} for {p} people.",
            "Reserve a table for {p} at {n}, {d} at {h}.",
            "We are {p} and want to eat at {n} on {d} at {h}.",
            "A table at {n} for {p} on {d}, {h}, please.",
        ]
    ).format(n=name, d=day, h=hour, p=people)
    answer = draw.pick(
        [
            f"Your table at {name} is booked: {day} at {hour}, {people} people.",
            f"Done. {name} expects {people} of you on {day} at {hour}.",
        ]
    )
    missing = Missing(
        draw.pick(["Book a table at {n} on {d} at {h}.", "Reserve at {n}, {d} at {h}."]).format(
            n=name, d=day, h=hour
        ),
        draw.pick(["For how many people?", "How many of you?"]),
        draw.pick([f"{people}.", f"For {people}.", f"We are {people}."]),
    )
    step = Step(book, {"restaurant": name, "day": day, "time": hour, key: people}, {"booked": True})
    failure = (
        {"error": "fully booked"},
        f"{name} is fully booked on {day} at {hour}. Shall I try another time?",
    )
    return Need("book tables", ask, step, answer, failure, missing)


def chain(draw: Draw) -> Chain:
    """Find a restaurant, then book it."""
    book, key = _book(draw)
    find = tool("find_restaurant", "Find a restaurant.", city="string", kitchen="string")
    city, kitchen, name = draw.pick(CITIES), draw.pick(KITCHENS), draw.pick(NAMES)
    day, hour, people = draw.pick(DAYS), draw.pick(HOURS), draw.number(2, 8)
    ask = draw.pick(
        [
            "Find {k} food in {c} and book a table for {p} on {d} at {h}.",
            "I want {k} food in {c} on {d} at {h}, {p} people. Book something.",
            "Book a {k} restaurant in {c} for {p} on {d} at {h}.",
        ]
    ).format(k=kitchen, c=city, p=people, d=day, h=hour)
    steps = [
        Step(find, {"city": city, "kitchen": kitchen}, {"name": name}),
        Step(book, {"restaurant": name, "day": day, "time": hour, key: people}, {"booked": True}),
    ]
    return Chain(ask, steps, f"I booked {name} in {city} for {people} people on {day} at {hour}.")
