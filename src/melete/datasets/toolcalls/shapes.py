"""The shapes that a conversation can take, each a function of a draw; `SHAPES` gives their shares.

The tools on offer are those that the story needs and up to two that it does not, in random order. A conversation ends
with an assistant turn. Most fit in 256 tokens of a small vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

from melete import find
from melete.datasets.toolcalls import chatter
from melete.datasets.toolcalls.domains.calculator import CALCULATOR
from melete.datasets.toolcalls.drawing import Draw, Need, Step, Tool, compact
from melete.records import Conversation, ToolCall, Turn

DOMAINS = "melete.datasets.toolcalls.domains"
SYSTEM = [
    "You are Melete, a helpful assistant.",
    "You are Melete. Call a tool when one fits; otherwise answer yourself.",
    "You are a helpful assistant with tools. Be brief.",
    "Answer briefly. Use the tools when they help.",
    "You are Melete, a small and friendly language model.",
]
GREETINGS = ["Hello, ", "Hey, ", "OK, ", "Hi Melete, "]
Story = list[Turn]


def single(draw: Draw) -> Conversation:
    """One request, one call, one answer; sometimes a thank-you after it."""
    need = _need(draw)
    return _told(
        draw, [_user(need.ask), *_calls(draw, [need.step]), _says(need.answer), *_thanks(draw)], [need.step]
    )


def arithmetic(draw: Draw) -> Conversation:
    """One request for the calculator."""
    need: Need = _domain("calculator").need(draw)
    return _told(draw, [_user(need.ask), *_calls(draw, [need.step]), _says(need.answer)], [need.step])


def parallel(draw: Draw) -> Conversation:
    """Two requests in one message, answered by two calls in one turn."""
    domain = draw.pick(_domains())
    needs = [
        _domain(domain).need(draw),
        _domain(domain if draw.chance(0.4) else draw.pick(_domains())).need(draw),
    ]
    if len({need.step.tool.name for need in needs}) == 1 and needs[0].step.tool != needs[1].step.tool:
        needs = needs[:1]  # two schemas under one name cannot be offered together
    joined = draw.pick([" Also: ", " And another thing: ", " And ", " Then, ", " "])
    ask = needs[0].ask + "".join(joined + need.ask for need in needs[1:])
    steps = [need.step for need in needs]
    return _told(
        draw, [_user(ask), *_calls(draw, steps), _says(" ".join(need.answer for need in needs))], steps
    )


def chain(draw: Draw) -> Conversation:
    """One request that takes several calls, each after the result of the one before."""
    told = draw.pick([_domain(name) for name in _domains() if hasattr(_domain(name), "chain")]).chain(draw)
    turns = [_user(told.ask)]
    for number, step in enumerate(told.steps):
        turns += _calls(draw, [step], first=number)
    return _told(draw, [*turns, _says(told.answer)], told.steps)


def follow_up(draw: Draw) -> Conversation:
    """Two requests, one after the other."""
    domain = draw.pick(_domains())
    first, second = _domain(domain).need(draw), _domain(draw.pick(_domains())).need(draw)
    turns = [_user(first.ask), *_calls(draw, [first.step]), _says(first.answer)]
    if second.step.tool.name != first.step.tool.name or second.step.tool == first.step.tool:
        turns += [_user(second.ask), *_calls(draw, [second.step], first=1), _says(second.answer)]
        return _told(draw, turns, [first.step, second.step])
    return _told(draw, turns, [first.step])


def missing(draw: Draw) -> Conversation:
    """A request without an argument that the tool needs: the assistant asks, then calls."""
    need = _need(draw)
    while need.missing is None:
        need = _need(draw)
    turns = [_user(need.missing.ask), _says(need.missing.question), _user(need.missing.reply)]
    return _told(draw, [*turns, *_calls(draw, [need.step]), _says(need.answer)], [need.step])


def failing(draw: Draw) -> Conversation:
    """The tool answers with an error, and the assistant says so."""
    need = _need(draw)
    result, answer = need.failure
    step = Step(need.step.tool, need.step.arguments, result)
    return _told(draw, [_user(need.ask), *_calls(draw, [step]), _says(answer)], [step])


def no_tool(draw: Draw) -> Conversation:
    """A request for which no tool is offered: the assistant says what it cannot do."""
    need = _need(draw)
    others = [tool for tool in _others(draw, 2, {need.step.tool.name}) if tool.name != need.step.tool.name]
    answer = draw.pick(
        [
            f"I cannot {need.purpose}: I have no tool for that.",
            f"Sorry, none of my tools can {need.purpose}.",
            f"I have no tool to {need.purpose}, so I cannot answer that.",
        ]
    )
    return Conversation(
        (*_system(draw), _user(need.ask), _says(answer)), tuple(t.to_openai() for t in others)
    )


def talk(draw: Draw) -> Conversation:
    """Small talk or a small fact, with or without tools on offer."""
    ask, answer = draw.pick([chatter.small_talk, chatter.fact])(draw)
    return _talk(draw, ask, answer)


def identity(draw: Draw) -> Conversation:
    """Who the assistant is."""
    return _talk(draw, *chatter.identity(draw))


SHAPES: list[tuple[Callable[[Draw], Conversation], int]] = [
    (single, 32),
    (arithmetic, 14),
    (parallel, 8),
    (chain, 9),
    (follow_up, 5),
    (missing, 8),
    (failing, 5),
    (no_tool, 6),
    (talk, 7),
    (identity, 6),
]
"""Shapes and their shares in percent."""


def conversation(draw: Draw) -> Conversation:
    """A conversation of a random shape."""
    point = draw.number(0, sum(share for _, share in SHAPES) - 1)
    for shape, share in SHAPES:
        if point < share:
            return shape(draw)
        point -= share
    raise AssertionError("the shares are exhausted only past their sum")


def casual(draw: Draw, conversation: Conversation) -> Conversation:
    """The same conversation as people type it: now and then a small first letter, no full stop, a word of greeting."""
    turns = (
        dataclasses.replace(turn, content=_typed(draw, turn.content)) if turn.role == "user" else turn
        for turn in conversation.turns
    )
    return dataclasses.replace(conversation, turns=tuple(turns))


def _typed(draw: Draw, text: str) -> str:
    if draw.chance(0.15):
        text = text.rstrip(".?!")
    greeting = draw.pick(GREETINGS) if draw.chance(0.05) else ""
    if (greeting or draw.chance(0.15)) and text[1:2].islower():
        text = text[0].lower() + text[1:]
    return greeting + text


@lru_cache(1)
def _domains() -> list[str]:
    return find.names(DOMAINS)


@lru_cache
def _domain(name: str) -> ModuleType:
    return find.load(DOMAINS, name, "domain")


def _need(draw: Draw) -> Need:
    need: Need = _domain(draw.pick(_domains())).need(draw)
    return need


def _user(text: str) -> Turn:
    return Turn("user", text)


def _says(text: str) -> Turn:
    return Turn("assistant", text)


def _calls(draw: Draw, steps: list[Step], first: int = 0) -> list[Turn]:
    ids = [f"call_{first + i + 1}" for i in range(len(steps))]
    calls = tuple(
        ToolCall(name, step.tool.name, compact(step.arguments)) for name, step in zip(ids, steps, strict=True)
    )
    aside = draw.pick(["Let me check.", "One moment.", "I will look."]) if draw.chance(0.1) else ""
    results = [
        Turn("tool", compact(step.result), tool_call_id=name) for name, step in zip(ids, steps, strict=True)
    ]
    return [Turn("assistant", aside, calls), *results]


def _thanks(draw: Draw) -> list[Turn]:
    if not draw.chance(0.08):
        return []
    asks, answers = chatter.SMALL_TALK[2]
    return [_user(draw.pick(asks)), _says(draw.pick(answers))]


def _system(draw: Draw) -> list[Turn]:
    return [Turn("system", draw.pick(SYSTEM))] if draw.chance(0.4) else []


def _others(draw: Draw, most: int, taken: set[str]) -> list[Tool]:
    """Up to `most` tools that the story does not need, and often the calculator, which a chat has at hand."""
    found: dict[str, Tool] = {}
    if draw.chance(0.2) and CALCULATOR.name not in taken:
        found[CALCULATOR.name] = CALCULATOR
    for _ in range(draw.number(0, most)):
        tool = _need(draw).step.tool
        if tool.name not in taken:
            found[tool.name] = tool
    return list(found.values())


def _told(draw: Draw, turns: Story, steps: list[Step]) -> Conversation:
    needed = {step.tool.name: step.tool for step in steps}
    tools = [*needed.values(), *_others(draw, 2, set(needed))]
    order = sorted(tools, key=lambda _: draw.number(0, 10**9))
    return Conversation((*_system(draw), *turns), tuple(tool.to_openai() for tool in order))


def _talk(draw: Draw, ask: str, answer: str) -> Conversation:
    tools = _others(draw, 2, set()) if draw.chance(0.5) else []
    return Conversation(
        (*_system(draw), _user(ask), _says(answer)), tuple(tool.to_openai() for tool in tools)
    )
