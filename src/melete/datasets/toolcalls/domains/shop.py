"""Products of a shop: price, stock, and the cart."""

from __future__ import annotations

from fractions import Fraction

from melete.datasets.toolcalls.domains import calculator
from melete.datasets.toolcalls.drawing import Chain, Draw, Missing, Need, Step, Tool, tool
from melete.datasets.toolcalls.words import GOODS

COLORS = ["red", "blue", "green", "black", "white", "yellow", "grey", "brown"]


def _price(draw: Draw) -> tuple[Tool, str]:
    key = draw.mostly("product", "item", "article")
    return tool(draw.mostly("get_price", "price_of"), "Price of a product in EUR.", **{key: "string"}), key


def need(draw: Draw) -> Need:
    """A price, or things into the cart."""
    if draw.pick([False, True]):
        return _cart(draw)
    price, key = _price(draw)
    good = f"{draw.pick(COLORS)} {draw.pick(GOODS)}"
    result = {"price": draw.number(3, 300), "in_stock": draw.chance(0.8)}
    ask = draw.pick(
        [
            "What does the {g} cost?",
            "How much is the {g}?",
            "Tell me the price of the {g}.",
            "Is the {g} in stock, and what does it cost?",
            "I would like the {g}. What is the price?",
        ]
    ).format(g=good)
    stock = "in stock" if result["in_stock"] else "sold out"
    answer = draw.pick(
        [f"The {good} costs {result['price']} euros and is {stock}.", f"{result['price']} euros, {stock}."]
    )
    missing = Missing(
        draw.pick(["How much does it cost?", "Can you tell me a price?"]),
        draw.pick(["Of which product?", "Which product do you mean?"]),
        draw.pick([f"The {good}.", f"A {good}."]),
    )
    failure = ({"error": f"no product {good}"}, f"The shop has no {good}.")
    return Need("look up prices", ask, Step(price, {key: good}, result), answer, failure, missing)


def chain(draw: Draw) -> Chain:
    """Look up a price, then work out the total."""
    price, key = _price(draw)
    good, euros, count = draw.pick(GOODS), draw.number(3, 99), draw.number(2, 20)
    total = calculator.step(f"{count} * {euros}", Fraction(count * euros))
    ask = draw.pick(
        [
            "What do {n} {g}s cost?",
            "I need {n} {g}s. What is the total?",
            "How much would I pay for {n} {g}s?",
        ]
    ).format(n=count, g=good)
    return Chain(
        ask,
        [Step(price, {key: good}, {"price": euros}), total],
        f"One {good} costs {euros} euros, so {count} of them cost {count * euros} euros.",
    )


def _cart(draw: Draw) -> Need:
    add = tool(
        draw.mostly("add_to_cart", "cart_add"),
        "Put products into the cart.",
        products="list",
        gift="boolean?",
    )
    goods, gift = draw.some(GOODS, draw.number(1, 3)), draw.pick([False, False, True])
    listed = (
        " and ".join([", ".join(f"a {good}" for good in goods[:-1]), f"a {goods[-1]}"])
        if len(goods) > 1
        else f"a {goods[0]}"
    )
    listed = listed.replace("a umbrella", "an umbrella")
    wish = " as a gift" if gift else ""
    ask = draw.pick(
        [
            "Put {l} into my cart{w}.",
            "I want to buy {l}{w}.",
            "Add {l} to the cart{w}.",
            "I take {l}{w}.",
        ]
    ).format(l=listed, w=wish)
    arguments: dict[str, object] = {"products": goods, **({"gift": True} if gift else {})}
    failure = ({"error": "sold out"}, f"Sorry, {', '.join(goods)}: sold out.")
    return Need(
        "fill a cart",
        ask,
        Step(add, arguments, {"items": len(goods)}),
        f"I put {listed} into your cart{wish}.",
        failure,
    )
