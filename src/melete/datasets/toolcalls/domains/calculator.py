"""Arithmetic with the calculator: `{"expression": "17 * 23"}`; every result is computed exactly."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from melete.datasets.toolcalls.drawing import Chain, Draw, Missing, Need, Step, Tool, tool
from melete.datasets.toolcalls.words import GOODS

CALCULATOR = tool("calculator", "Work out an arithmetic expression.", expression="string")


def written(value: Fraction) -> str:
    """A number as the calculator prints it: no trailing zeros, at most six decimals."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{round(value, 6).numerator / Decimal(round(value, 6).denominator):f}".rstrip("0")


def step(expression: str, value: Fraction, calculator: Tool = CALCULATOR) -> Step:
    """A call of the calculator with its result."""
    return Step(calculator, {"expression": expression}, written(value))


def need(draw: Draw) -> Need:
    """What an expression comes to."""
    words, expression, value = draw.pick(_KINDS)(draw)
    result = written(value)
    ask = draw.pick(
        [
            "What is {x}?",
            "What's {x}?",
            "Calculate {x}.",
            "How much is {x}?",
            "Work out {x}.",
            "Please compute {x}.",
            "{x} = ?",
            "Can you tell me what {x} is?",
            "I need the result of {x}.",
            "What do you get for {x}?",
        ]
    ).format(x=words)
    answer = draw.pick(
        [f"{words} is {result}.", f"The result is {result}.", f"That is {result}.", f"It comes to {result}."]
    )
    missing = Missing(
        draw.pick(
            [
                "Can you multiply two numbers for me?",
                "Please do a calculation for me.",
                "I have some arithmetic for you.",
            ]
        ),
        draw.pick(["Of course. Which numbers?", "Sure, what should I calculate?"]),
        draw.pick([f"{words}.", f"It is {words}.", f"{words}, please."]),
    )
    return Need(
        "calculate",
        ask,
        step(expression, value),
        _capital(answer),
        (
            "error: the calculator is not available",
            "The calculator is not available now, so I cannot give you a sure result.",
        ),
        missing,
    )


def chain(draw: Draw) -> Chain:
    """A total, then what is left of a budget or each person's share of it."""
    good, other = draw.some(GOODS, 2)
    price, count, extra, people = (
        draw.number(3, 95),
        draw.number(2, 12),
        draw.number(4, 90),
        draw.pick([2, 4, 5]),
    )
    total = price * count + extra
    first = step(f"{price} * {count} + {extra}", Fraction(total))
    if draw.pick([True, False]):
        budget = total + draw.number(5, 300)
        second = step(f"{budget} - {total}", Fraction(budget - total))
        ask = (
            f"I buy {count} {good}s at {price} euros each and one {other} for {extra}. What is the total, "
            f"and what is left of {budget} euros?"
        )
        return Chain(
            ask, [first, second], f"The total is {total} euros, and {budget - total} euros are left."
        )
    share = Fraction(total, people)
    second = step(f"{total} / {people}", share)
    ask = (
        f"We order {count} {good}s at {price} euros each and a {other} for {extra}. How much is that "
        f"together, and for each of {people} people?"
    )
    return Chain(
        ask,
        [first, second],
        f"Together it is {total} euros, which is {written(share)} euros for each of you.",
    )


def _product(draw: Draw) -> tuple[str, str, Fraction]:
    a, b = draw.number(2, draw.pick([12, 99, 999])), draw.number(2, draw.pick([12, 99, 999]))
    return (
        draw.pick([f"{a} times {b}", f"{a} x {b}", f"{a} * {b}", f"{a}*{b}", f"{a} multiplied by {b}"]),
        f"{a} * {b}",
        Fraction(a * b),
    )


def _sum(draw: Draw) -> tuple[str, str, Fraction]:
    a, b = draw.number(2, draw.pick([99, 999, 9999])), draw.number(2, draw.pick([99, 999, 9999]))
    return (
        draw.pick([f"{a} plus {b}", f"{a} + {b}", f"{a}+{b}", f"the sum of {a} and {b}"]),
        f"{a} + {b}",
        Fraction(a + b),
    )


def _difference(draw: Draw) -> tuple[str, str, Fraction]:
    b, rest = draw.number(2, 500), draw.number(1, 500)
    a = b + rest
    return (
        draw.pick([f"{a} minus {b}", f"{a} - {b}", f"{a}-{b}", f"{a} take away {b}"]),
        f"{a} - {b}",
        Fraction(rest),
    )


def _quotient(draw: Draw) -> tuple[str, str, Fraction]:
    b = draw.pick([2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 20, 25])
    a = (
        b * draw.number(2, 99)
        if draw.chance(0.7) or b not in (2, 4, 5, 8, 10, 20, 25)
        else draw.number(3, 400)
    )
    return draw.pick([f"{a} divided by {b}", f"{a} / {b}", f"{a}/{b}"]), f"{a} / {b}", Fraction(a, b)


def _percent(draw: Draw) -> tuple[str, str, Fraction]:
    p, a = draw.pick([5, 10, 12, 15, 20, 25, 30, 40, 60, 75]), draw.number(2, 60) * 10
    return draw.pick([f"{p} percent of {a}", f"{p}% of {a}"]), f"{a} * {p} / 100", Fraction(a * p, 100)


def _three(draw: Draw) -> tuple[str, str, Fraction]:
    a, b, c = draw.number(2, 60), draw.number(2, 60), draw.number(2, 12)
    if draw.pick([True, False]):
        return f"({a} + {b}) * {c}", f"({a} + {b}) * {c}", Fraction((a + b) * c)
    return f"{a} plus {b} times {c}", f"{a} + {b} * {c}", Fraction(a + b * c)


def _square(draw: Draw) -> tuple[str, str, Fraction]:
    a = draw.number(2, 40)
    return draw.pick([f"{a} squared", f"the square of {a}"]), f"{a} ** 2", Fraction(a * a)


def _price(draw: Draw) -> tuple[str, str, Fraction]:
    good, count, cents = draw.pick(GOODS), draw.number(2, 15), draw.number(105, 4999)
    price = f"{cents // 100}.{cents % 100:02d}"
    return (
        f"the price of {count} {good}s at {price} euros each",
        f"{count} * {price}",
        Fraction(count * cents, 100),
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_KINDS = [_product, _product, _sum, _difference, _quotient, _percent, _three, _square, _price]
