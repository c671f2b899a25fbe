"""Lengths, weights and temperatures in other units; every result is computed."""

from __future__ import annotations

from fractions import Fraction

from melete.datasets.toolcalls.domains.calculator import written
from melete.datasets.toolcalls.drawing import Draw, Missing, Need, Step, tool

FACTORS: dict[tuple[str, str], int | Fraction] = {
    ("km", "m"): 1000,
    ("m", "cm"): 100,
    ("kg", "g"): 1000,
    ("h", "min"): 60,
    ("min", "s"): 60,
    ("l", "ml"): 1000,
    ("mile", "km"): Fraction("1.609"),
    ("inch", "cm"): Fraction("2.54"),
    ("foot", "cm"): Fraction("30.48"),
    ("pound", "kg"): Fraction("0.454"),
    ("gallon", "l"): Fraction("3.785"),
    ("day", "h"): 24,
    ("week", "day"): 7,
}
WORDS = {
    "km": "kilometres",
    "m": "metres",
    "cm": "centimetres",
    "kg": "kilograms",
    "g": "grams",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "l": "litres",
    "ml": "millilitres",
    "mile": "miles",
    "inch": "inches",
    "foot": "feet",
    "pound": "pounds",
    "gallon": "gallons",
    "day": "days",
    "week": "weeks",
}


def need(draw: Draw) -> Need:
    """Convert a quantity."""
    key = draw.mostly("value", "quantity")
    source, target = draw.mostly(("from", "to"), ("unit", "into"))
    name = draw.mostly("convert_units", "unit_converter")
    convert = tool(name, "Convert a quantity.", **{key: "number", source: "string", target: "string"})
    pair = draw.pick(list(FACTORS))
    value = draw.number(2, 250)
    result = written(value * Fraction(FACTORS[pair]))
    one, other = WORDS[pair[0]], WORDS[pair[1]]
    ask = draw.pick(
        [
            "How many {y} are {v} {x}?",
            "Convert {v} {x} to {y}.",
            "What is {v} {x} in {y}?",
            "{v} {x} in {y}, please.",
            "How much is {v} {x} in {y}?",
            "Express {v} {x} in {y}.",
        ]
    ).format(v=value, x=one, y=other)
    answer = draw.pick(
        [f"{value} {one} are {result} {other}.", f"That is {result} {other}.", f"{result} {other}."]
    )
    missing = Missing(
        draw.pick(["Convert {v} {x}, please.", "What are {v} {x} in another unit?"]).format(v=value, x=one),
        draw.pick(["Into which unit?", "To which unit?"]),
        draw.pick([f"Into {other}.", f"{other.capitalize()}."]),
    )
    step = Step(convert, {key: value, source: pair[0], target: pair[1]}, {"value": result})
    failure = ({"error": "unknown unit"}, f"The converter does not know how to turn {one} into {other}.")
    return Need("convert units", ask, step, answer, failure, missing)
