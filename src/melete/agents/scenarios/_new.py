"""A library's desk: extend a loan, or say no when somebody else waits for the book.

This file was written by `melete agents scenarios new`. It works as it is: `melete agents scenarios check new_scenario`
plays it. Read it from the top, replace the library by your own world, and keep the check green.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from melete.actions import prompts
from melete.actions.action import Message, ToolAction
from melete.actions.guard import Guard
from melete.actions.tools import ToolFailure, ToolSet, tool
from melete.agents.phrases import Pool, fill
from melete.agents.scenario import Criterion, Policy, Scenario, State, Task, World, copy_state
from melete.datasets.toolcalls.drawing import Draw
from melete.errors import ConfigError

# How people ask: `[a|b|]` is a choice, `{book}` a slot. Another pool for `unseen` shares no line with the first, so
# that the score on it tells whether the agent understood, or only remembers.
POOLS = {
    "train": Pool(
        {
            "greetings": ["[hello|hi|good morning][ there|]!", "excuse me,"],
            "problems": [
                "I [want|would like|need] to keep {book} for [longer|some more days].",
                "[can|could] you extend [my loan of |]{book}[ please|]?",
                "[please|kindly] [extend|renew] {book}[ for me|].",
            ],
            "cards": ["[my card is|card number|it is card] {card}."],
        }
    ),
    "unseen": Pool(
        {
            "greetings": ["greetings.", "[hey|howdy]."],
            "problems": [
                "I am [not done|still busy] with {book}, is there a way to prolong it?",
                "{book} is due, give me more time.",
            ],
            "cards": ["you know me as reader {card}."],
        }
    ),
}
BOOKS = (
    "Emma",
    "Ulysses",
    "Dracula",
    "Middlemarch",
    "Walden",
    "Candide",
    "Faust",
    "Utopia",
    "Nostromo",
    "Kim",
)


class Library(World):
    """Loans by card. `state` is a plain mapping; tools change it and criteria read it."""

    def __init__(self, task: Task) -> None:
        self.state: State = copy_state(task.goal["tables"])
        self._task = task

    def opening(self) -> str:
        """What the person says first."""
        return self._task.request

    def reply(self, text: str) -> str | None:
        """The simulated person: gives the card when asked for it; None ends the episode."""
        if "?" in text and re.search(r"\bcard\b", text, re.I):
            return f"It is {self._task.goal['card']}."
        return "Sorry, what do you mean?" if text.rstrip().endswith("?") else None

    def facts(self) -> Mapping[str, Any]:
        """What the guard knows from the start: here the cards whose book nobody waits for."""
        loans = self.state["loans"]
        return {"free": [int(card) for card in loans if not loans[card]["waiting"]]}

    # A method with types and a docstring becomes a tool. What it returns, the agent reads; a `ToolFailure` is a call
    # that failed, with a text that the agent can act on.
    @tool
    def get_loan(self, card: int) -> dict[str, Any]:
        """Look up the loan of a reader's card."""
        return dict(self._loan(card))

    @tool
    def extend_loan(self, card: int) -> str:
        """Extend the loan of a card by 14 days."""
        self._loan(card)["days"] += 14
        return "extended"

    # A distractor: plausible, but never right. The guard does not allow it.
    @tool
    def delete_reader(self, card: int) -> str:
        """Delete a reader."""
        del self.state["loans"][str(card)]
        return "deleted"

    def _loan(self, card: int) -> dict[str, Any]:
        loan: dict[str, Any] | None = self.state["loans"].get(str(card))
        if loan is None:
            raise ToolFailure(f"no card {card}")
        return loan


class NewScenario(Scenario):
    """The tools, the guard, the requests and the criteria in one place."""

    name = "new_scenario"
    version = "1"
    description = "A library's desk: extend a loan, or say no when somebody else waits for the book."
    max_steps = 8
    # A file of your own, `<name>@<version>.md` in a folder, is loaded with prompts.load(name, folder).
    prompt = prompts.load("tool_agent")
    system_prompt = prompt.render(
        role="the clerk of a library's desk", rules=["Look a loan up before you extend it."]
    )
    toolset = ToolSet.of(Library)
    # Everything that no allow_list names is refused. The other rule types: see docs/actions.md.
    guard = Guard.from_dict(
        {
            "name": "new_scenario",
            "version": 1,
            "rules": [
                {"allow_list": {"tools": ["get_loan", "extend_loan"]}},
                {"budget": {"calls": 6}},
                {
                    "precondition": {
                        "tool": "extend_loan",
                        "needs": "get_loan",
                        "match": {"card": "card"},
                        "reason": "get_loan first.",
                    }
                },
                {
                    "precondition": {
                        "tool": "extend_loan",
                        "needs": "get_loan",
                        "match": {"card": "fact.free"},
                        "reason": "somebody waits for the book.",
                    }
                },
            ],
        }
    )

    def tasks(self, split: str, count: int | None = None, start: int = 0, seed: int = 0) -> list[Task]:
        """Tasks of a split; cards that end with 7 are kept from training."""
        if split not in self.splits or count is None:
            raise ConfigError(f"{self.name} needs a count and one of its splits: {', '.join(self.splits)}.")
        return [self._task(split, seed, index) for index in range(start, start + count)]

    def _task(self, split: str, seed: int, index: int) -> Task:
        draw = Draw(f"{self.name} {split} {seed} {index}")
        pool = POOLS["unseen" if split == "unseen" else "train"]
        card = draw.number(100, 999) * 10 + (draw.number(0, 6) if split == "train" else 7)
        loan: dict[str, Any] = {
            "book": draw.pick(BOOKS),
            "days": draw.number(0, 5),
            "waiting": draw.chance(0.3),
        }
        told = [pool.draw(draw, "greetings"), pool.draw(draw, "problems")]
        given = draw.chance(0.7)
        if given:
            told.append(pool.draw(draw, "cards"))
        request = fill(" ".join(told), {"book": loan["book"], "card": card})
        # The goal is what a criterion compares with; it may hold anything that JSON can.
        days = loan["days"] + (0 if loan["waiting"] else 14)
        goal: dict[str, Any] = {
            "tables": {"loans": {str(card): loan}},
            "final": {str(card): {**loan, "days": days}},
            "card": card,
            "given": given,
        }
        return Task(f"{split}-{seed}-{index}", self.name, split, request, goal, seed * 1_000_003 + index)

    def world(self, task: Task) -> Library:
        """A fresh world."""
        return Library(task)

    def success_criteria(self) -> list[Criterion]:
        """True at the end of a solved task, told from the state alone."""
        return [
            Criterion("loans", "The loan is as it has to be.", lambda s: s["loans"] == s["goal"]["final"]),
            Criterion("answered", "The person was told how it ended.", _told),
        ]

    def progress(self, state: State) -> float:
        """Share of the right steps, which is worth a little even when the task is not solved."""
        card = state["goal"]["card"]
        looked_up = ToolAction("get_loan", {"card": card}).key in state["episode"]["executed"]
        changed = bool(state["loans"] == state["goal"]["final"])
        return (looked_up + changed) / 2

    def expert(self, task: Task) -> Policy:
        """A script that solves the task; demonstrations and the check play it."""
        card, waiting = task.goal["card"], task.goal["tables"]["loans"][str(task.goal["card"])]["waiting"]
        moves: list[ToolAction | Message] = [] if task.goal["given"] else [Message("Which card number?")]
        moves.append(ToolAction("get_loan", {"card": card}))
        if waiting:
            moves.append(Message("Sorry, somebody waits for it."))
        else:
            moves += [ToolAction("extend_loan", {"card": card}), Message("It is extended by 14 days.")]
        following = iter(moves)
        return lambda observation: next(following)


def _told(state: State) -> bool:
    said = " ".join(state["episode"]["said"]).lower()
    waiting = state["goal"]["tables"]["loans"][str(state["goal"]["card"])]["waiting"]
    return ("sorry" in said) if waiting else ("extended" in said)


SCENARIO = NewScenario
