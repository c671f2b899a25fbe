"""The customer of a tau-bench task, played by a script: says the request, answers questions, confirms what was wanted.

The instruction of a task is written for an actor ("You want to …"). The script says it in the first person, tells
who it is when asked, and otherwise explains the next thing that it still wants. It confirms a call if, and only if,
the call is one of the gold actions, each once.

Limits, which make it no substitute for a person played by a model: the rewriting is mechanical; the whole request
is said at once, also what the instruction wants held back or said only under a condition; nothing is ever changed,
haggled over or got wrong. Figures measured with it are not comparable with published tau-bench results.
"""

from __future__ import annotations

import re

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
PERSONA = re.compile(r"You are (?:an? )?[a-z]+(?:,? (?:and )?[a-z]+)*\.")
IDENTITY = re.compile(r"Your? name is [\w' ]+ and your (?:zip code|email) is \S+\.")
ASKS_WHO = re.compile(r"\b(?:e-?mail|zip|your name|user id|identity|verify|authenticat\w*)\b", re.IGNORECASE)
ASKS_YES = re.compile(r"\b(?:yes|confirm\w*|proceed|go ahead|shall i|should i)\b", re.IGNORECASE)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
FIRST_PERSON = tuple(
    (re.compile(rf"\b{second}\b", re.IGNORECASE), first)
    for second, first in (
        ("you are", "I am"), ("you're", "I'm"), ("you were", "I was"), ("yourself", "myself"), ("yours", "mine"),
        ("your", "my"), ("you name", "my name"), (r"(to|for|with|by|from|of|lets?|gives?|tells?|asks?) you", r"\1 me"),
        ("you", "I"),
    )
)  # fmt: skip


def request(instruction: str) -> str:
    """The instruction as the customer says it, without name, address and character."""
    said = [
        sentence
        for sentence in SENTENCE.split(instruction)
        if not PERSONA.fullmatch(sentence) and not IDENTITY.fullmatch(sentence)
    ]
    text = " ".join(said) or instruction
    for second, first in FIRST_PERSON:
        text = second.sub(first, text)
    return re.sub(r"(^|[.!?]\s+)([a-z])", lambda found: found[1] + found[2].upper(), text.strip())


def says(message: str, wanted: str) -> bool:
    """Whether a message tells a wanted value: a number by its value, anything else by its words."""
    plain = message.lower().replace(",", "")
    target = wanted.lower().replace(",", "")
    if NUMBER.fullmatch(target):
        return any(float(found) == float(target) for found in NUMBER.findall(plain))
    return target in plain
