"""People in the address book, and messages to them."""

from __future__ import annotations

from melete.datasets.toolcalls.drawing import Chain, Draw, Missing, Need, Step, Tool, tool
from melete.datasets.toolcalls.words import PEOPLE, SURNAMES

TEXTS = [
    "I am late",
    "see you at noon",
    "call me back",
    "happy birthday",
    "dinner is ready",
    "the meeting is over",
    "thank you for the gift",
    "I am on my way",
    "bring some bread",
    "good luck today",
    "the train is delayed",
    "please send the report",
]


def _find(draw: Draw) -> Tool:
    return tool(draw.mostly("find_contact", "get_contact"), "Phone and address of a person.", name="string")


def _send(draw: Draw) -> tuple[Tool, str]:
    key = draw.mostly("text", "message")
    return tool(
        draw.mostly("send_message", "send_text"),
        "Send a message to a number.",
        **{"phone": "string", key: "string"},
    ), key


def need(draw: Draw) -> Need:
    """Somebody's number or address."""
    find = _find(draw)
    person = f"{draw.pick(PEOPLE)} {draw.pick(SURNAMES)}"
    what = draw.pick(["phone", "email"])
    word = {"phone": "phone number", "email": "email address"}[what]
    result = {
        "phone": _phone(draw),
        "email": f"{person.split()[0].lower()}@{draw.pick(['mail', 'post', 'home'])}.org",
    }
    ask = draw.pick(
        [
            "What is the {w} of {p}?",
            "Give me the {w} of {p}.",
            "I need the {w} of {p}.",
            "Do you have the {w} of {p}?",
            "Look up the {w} of {p}.",
            "How do I reach {p}? I want the {w}.",
        ]
    ).format(w=word, p=person)
    answer = draw.pick(
        [f"The {word} of {person} is {result[what]}.", f"It is {result[what]}.", f"{person}: {result[what]}."]
    )
    missing = Missing(
        draw.pick(["I need a {w}.", "Look up a {w} for me."]).format(w=word).replace("a email", "an email"),
        draw.pick(["Whose?", "Of which person?"]),
        draw.pick([f"{person}.", f"Of {person}.", f"{person}'s."]),
    )
    failure = ({"error": f"no contact {person}"}, f"{person} is not in your contacts.")
    return Need("look up contacts", ask, Step(find, {"name": person}, result), answer, failure, missing)


def chain(draw: Draw) -> Chain:
    """Find the number, then send the message."""
    find, (send, key) = _find(draw), _send(draw)
    person, text, phone = draw.pick(PEOPLE), draw.pick(TEXTS), _phone(draw)
    ask = draw.pick(
        [
            "Write to {p}: {t}.",
            "Send {p} a message: {t}.",
            "Text {p} that says {t}.",
            "Tell {p} this: {t}.",
            "Message {p}, {t}.",
        ]
    ).format(p=person, t=text)
    steps = [
        Step(find, {"name": person}, {"phone": phone}),
        Step(send, {"phone": phone, key: text}, {"sent": True}),
    ]
    return Chain(
        ask, steps, draw.pick([f"I sent {person} the message: {text}.", f"Done, {person} has your message."])
    )


def _phone(draw: Draw) -> str:
    return f"{draw.number(200, 999)}-{draw.number(1000, 9999)}"
