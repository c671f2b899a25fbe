"""Money in another currency, at plausible but invented rates."""

from __future__ import annotations

from fractions import Fraction

from melete.datasets.toolcalls.drawing import Chain, Draw, Missing, Need, Step, Tool, tool
from melete.datasets.toolcalls.words import GOODS

CODES = {
    "EUR": "euros",
    "USD": "dollars",
    "GBP": "pounds",
    "JPY": "yen",
    "CHF": "francs",
    "INR": "rupees",
    "SEK": "kronor",
    "CAD": "Canadian dollars",
}

PER_EURO = {
    "EUR": Fraction(1),
    "USD": Fraction("1.12"),
    "GBP": Fraction("0.86"),
    "JPY": Fraction(165),
    "CHF": Fraction("0.94"),
    "INR": Fraction(97),
    "SEK": Fraction("11.2"),
    "CAD": Fraction("1.55"),
}


def _tool(draw: Draw) -> tuple[Tool, str, str]:
    source, target = draw.mostly(("from", "to"), ("source", "target"))
    name = draw.mostly("convert_currency", "exchange")
    return (
        tool(name, "Convert money.", amount="number", **{source: "string", target: "string"}),
        source,
        target,
    )


def need(draw: Draw) -> Need:
    """Convert an amount."""
    convert, source, target = _tool(draw)
    one, other = draw.some(list(CODES), 2)
    amount = draw.number(2, 900)
    result = _exchanged(draw, amount, one, other)
    ask = draw.pick(
        [
            "How much is {a} {x} in {y}?",
            "Convert {a} {x} to {y}.",
            "What are {a} {x} in {y}?",
            "I have {a} {x}. How many {y} is that?",
            "Change {a} {x} into {y}, please.",
            "{a} {x} in {y}?",
        ]
    ).format(a=amount, x=CODES[one], y=CODES[other])
    answer = draw.pick(
        [f"{amount} {CODES[one]} are {result} {CODES[other]}.", f"That is {result} {CODES[other]}."]
    )
    missing = Missing(
        draw.pick(["Convert {a} {x} for me.", "How much are {a} {x} in another currency?"]).format(
            a=amount, x=CODES[one]
        ),
        draw.pick(["Into which currency?", "To which currency?"]),
        draw.pick([f"Into {CODES[other]}.", f"{CODES[other].capitalize()}."]),
    )
    step = Step(convert, {"amount": amount, source: one, target: other}, {"amount": result})
    failure = ({"error": "no rate today"}, f"There is no rate from {CODES[one]} to {CODES[other]} today.")
    return Need("convert money", ask, step, answer, failure, missing)


def chain(draw: Draw) -> Chain:
    """Look up a price, then convert it."""
    convert, source, target = _tool(draw)
    price = tool("get_price", "Price of a product in EUR.", product="string")
    good, code = draw.pick(GOODS), draw.pick([code for code in CODES if code != "EUR"])
    euros = draw.number(5, 400)
    result = _exchanged(draw, euros, "EUR", code)
    ask = draw.pick(
        [
            "What does the {g} cost in {y}?",
            "Give me the price of the {g} in {y}.",
            "How many {y} is the {g}?",
        ]
    ).format(g=good, y=CODES[code])
    steps = [
        Step(price, {"product": good}, {"price": euros}),
        Step(convert, {"amount": euros, source: "EUR", target: code}, {"amount": result}),
    ]
    return Chain(ask, steps, f"The {good} costs {euros} euros, which is {result} {CODES[code]}.")


def _exchanged(draw: Draw, amount: int, one: str, other: str) -> str:
    """The amount in the other currency; the rate is up to 3 % off, as rates are from day to day."""
    cents = amount * PER_EURO[other] / PER_EURO[one] * draw.number(970, 1030) / 10
    return f"{int(cents) // 100}.{int(cents) % 100:02d}"
