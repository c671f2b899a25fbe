"""Arithmetic requests with a calculator at hand: the final answer has to hold the right number.

Problems are the requests of the `toolcalls` dataset that are answered by one call of its calculator. The model may
call it, sees the result and answers; what the calculator says is computed here, not replayed. A right answer earns 1
however it was found; a right call without a right answer earns a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import islice

from melete import datasets
from melete.evals.answers import final_number
from melete.llm.calculator import calculate
from melete.llm.chat import call_arguments
from melete.llm.rewards import Problem
from melete.llm.rewards.toolcalls import MOST_CONVERSATIONS
from melete.records import Conversation, ToolCall, Turn
from melete.settings import Settings

TOOL = "calculator"
RIGHT_CALL = 0.3
TOLERANCE = Fraction(1, 10_000)
"""Relative, for numbers that are not whole: answers are often rounded."""


class Task:
    """See the head of this file."""

    max_turns = 3

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def problems(self, split: str) -> list[Problem]:
        """Requests in the order of the dataset; the answer is the number."""
        found = []
        every = datasets.open("toolcalls", self.settings).conversations(split)
        for conversation in islice(every, MOST_CONVERSATIONS):
            calls = [call for turn in conversation.turns for call in turn.tool_calls]
            asked = [i for i, turn in enumerate(conversation.turns) if turn.role == "user"]
            if len(calls) != 1 or calls[0].name != TOOL or len(asked) != 1:
                continue
            number = _number(run_calculator(calls[0]))
            shown = _number(next(turn.content for turn in conversation.turns if turn.role == "tool"))
            if number is not None and same(number, shown):  # left out: demonstrations of a failing calculator
                found.append(
                    Problem(Conversation(conversation.turns[: asked[0] + 1], conversation.tools), number)
                )
        return found

    def reply(self, problem: Problem, call: ToolCall) -> str:
        """What the calculator says."""
        return run_calculator(call)

    def reward(self, problem: Problem, turns: Sequence[Turn]) -> float:
        """1 if the last turn is an answer with the right number as its last one."""
        last = turns[-1]
        if (
            last.role == "assistant"
            and not last.tool_calls
            and same(final_number(last.content), problem.answer)
        ):
            return 1.0
        results = [_number(turn.content) for turn in turns if turn.role == "tool"]
        return RIGHT_CALL if any(same(result, problem.answer) for result in results) else 0.0


def run_calculator(call: ToolCall) -> str:
    """Result of a call of the calculator; a call that cannot be done is answered with an error text."""
    if call.name != TOOL:
        return f"error: there is no tool {call.name!r}; the tool is {TOOL!r}"
    arguments = call_arguments(call)
    if arguments is None or not isinstance(arguments.get("expression"), str):
        return 'error: the arguments must be {"expression": "…"}'
    return calculate(arguments["expression"])


def same(a: Fraction | None, b: Fraction | None) -> bool:
    """Whether two numbers are equal; fractions up to rounding."""
    if a is None or b is None:
        return False
    if a.denominator == b.denominator == 1:
        return a == b
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
