"""Dates: the one some days ahead; every result is computed."""

from __future__ import annotations

from datetime import date, timedelta

from melete.datasets.toolcalls.drawing import Draw, Missing, Need, Step, tool
from melete.datasets.toolcalls.words import DAYS

FIRST = date(2026, 1, 1)


def need(draw: Draw) -> Need:
    """A weekday, or the date some days ahead."""
    return _ahead(draw) if draw.pick([False, True]) else _weekday(draw)


def _weekday(draw: Draw) -> Need:
    weekday = tool(draw.mostly("weekday", "day_of_week"), "Weekday of a date.", date="string")
    day = FIRST + timedelta(days=draw.number(0, 720))
    name = DAYS[day.weekday()]
    ask = draw.pick(
        [
            "Which weekday is {d}?",
            "What day of the week is {d}?",
            "On which weekday does {d} fall?",
            "Is {d} a Sunday?",
        ]
    ).format(d=day.isoformat())
    missing = Missing(
        "Which weekday is it?", "Which date do you mean?", draw.pick([f"{day}.", f"I mean {day}."])
    )
    failure = ({"error": "bad date"}, "The calendar could not read that date.")
    return Need(
        "work out weekdays",
        ask,
        Step(weekday, {"date": day.isoformat()}, name),
        f"{day} is a {name}.",
        failure,
        missing,
    )


def _ahead(draw: Draw) -> Need:
    key = draw.mostly("start", "date")
    add = tool("add_days", "Date some days later.", **{key: "string", "days": "integer"})
    day, days = FIRST + timedelta(days=draw.number(0, 720)), draw.number(2, 120)
    then = day + timedelta(days=days)
    ask = draw.pick(
        [
            "What date is {n} days after {d}?",
            "Which date comes {n} days after {d}?",
            "Add {n} days to {d}.",
            "{d} plus {n} days?",
        ]
    ).format(n=days, d=day.isoformat())
    missing = Missing(
        f"Which date is some days after {day}?", "How many days?", draw.pick([f"{days}.", f"{days} days."])
    )
    failure = ({"error": "bad date"}, "The calendar could not read that date.")
    step = Step(add, {key: day.isoformat(), "days": days}, then.isoformat())
    return Need("add days to dates", ask, step, f"{days} days after {day} is {then}.", failure, missing)
