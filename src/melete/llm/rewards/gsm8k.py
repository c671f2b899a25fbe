"""Grade-school word problems of GSM8K (Cobbe et al. 2021, arXiv:2110.14168): the final number has to be right.

The answer is what stands after the last `####`, else the last number written, and it is compared as a number. Needs
the dataset `eval_gsm8k`; its train split is for practice, its test split is held out.
"""

from __future__ import annotations

from collections.abc import Sequence

from melete import datasets
from melete.llm.rewards import Problem
from melete.llm.rewards._numbers import final_answer, same
from melete.records import Conversation, ToolCall, Turn
from melete.settings import Settings

SYSTEM = "Solve the problem step by step. End with #### and the answer as a number."


class Task:
    """See the head of this file."""

    max_turns = 1

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def problems(self, split: str) -> list[Problem]:
        """Problems of GSM8K's train split, or of its test split for `val`."""
        dataset = datasets.open("eval_gsm8k", self.settings)
        return [
            Problem(
                Conversation((Turn("system", SYSTEM), Turn("user", row["question"]))),
                final_answer(row["answer"]),
            )
            for row in dataset.rows("train" if split == "train" else "test")
        ]

    def reply(self, problem: Problem, call: ToolCall) -> str:
        """There are no tools here."""
        return "error: no tool is offered in this task"

    def reward(self, problem: Problem, turns: Sequence[Turn]) -> float:
        """1 if the number is right."""
        return float(same(final_answer(turns[-1].content), problem.answer))
