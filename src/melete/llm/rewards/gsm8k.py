"""Grade-school word problems of GSM8K (Cobbe et al. 2021, arXiv:2110.14168): the final number has to be right.

It is asked and judged as in the evaluation of the same name (`evals/tasks/gsm8k.py`), number against number. Needs the
dataset `eval_gsm8k`; its train split is for practice, its test split is held out.
"""

from __future__ import annotations

from collections.abc import Sequence

from melete import datasets
from melete.evals.answers import final_number
from melete.evals.tasks.gsm8k import DATASET, SYSTEM
from melete.llm.rewards import Problem
from melete.records import Conversation, ToolCall, Turn
from melete.settings import Settings


class Task:
    """See the head of this file."""

    max_turns = 1

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def problems(self, split: str) -> list[Problem]:
        """Problems of GSM8K's train split, or of its test split for `val`."""
        dataset = datasets.open(DATASET, self.settings)
        return [
            Problem(
                Conversation((Turn("system", SYSTEM), Turn("user", row["question"].strip()))),
                final_number(row["answer"]),
            )
            for row in dataset.rows("train" if split == "train" else "test")
        ]

    def reply(self, problem: Problem, call: ToolCall) -> str:
        """There are no tools here."""
        return "error: no tool is offered in this task"

    def reward(self, problem: Problem, turns: Sequence[Turn]) -> float:
        """1 if the number is right."""
        number = final_number(turns[-1].content)
        return float(number is not None and number == problem.answer)
