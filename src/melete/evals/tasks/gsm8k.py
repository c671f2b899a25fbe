"""GSM8K: school arithmetic in words; the final number is compared as a number (Cobbe et al., 2021, arXiv:2110.14168).

`chat` asks in a conversation; `text` puts solved questions of the training split before it (`Question: …`,
`Answer: …`), for models that were never taught to chat. The answer is the number after the last `####`, `\\boxed{` or
"answer is", else the last number; `12`, `12.0` and `$12` are the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from melete import datasets
from melete.evals import scoring
from melete.evals.answers import final_number
from melete.evals.model import Generate, LanguageModel
from melete.evals.task import FewShot, Item, Row, Solution, TaskConfig, choose
from melete.records import Conversation, Score, Turn
from melete.settings import Settings

DATASET = "eval_gsm8k"
EXAMPLE = {"limit": 2, "max_tokens": 8}
SYSTEM = "Solve the problem step by step. End with #### and the answer as a number."
_ANNOTATION = re.compile(r"<<[^>]*>>")


class Config(TaskConfig):
    """Options of GSM8K."""

    style: Literal["chat", "text"] = Field(
        "chat", description="Ask in a conversation, or after solved questions."
    )
    shots: int = Field(4, ge=0, le=16, description="Solved questions before each one, for the style text.")
    max_tokens: int = Field(256, ge=1, description="Longest answer in tokens.")


class Task:
    """See the head of this file."""

    def __init__(self, config: Config, settings: Settings, seed: int) -> None:
        dataset = datasets.open(DATASET, settings)
        self.config = config
        self.datasets = {DATASET: dataset.fingerprint}
        questions = list(dataset.rows("test"))
        shots = config.shots if config.style == "text" else 0
        pool = FewShot(list(dataset.rows("train")) if shots else [], shots, seed, "gsm8k")
        self.rows = [
            # The pool is another split, so no item can be its own example.
            Row(f"gsm8k/{i}", "gsm8k", questions[i], pool.examples(i))
            for i in choose(len(questions), config.limit, seed, "gsm8k")
        ]

    def evaluate(self, model: LanguageModel, rows: Sequence[Row]) -> list[Item]:
        """Lets the model write and compares the final numbers."""
        how = Generate(self.config.max_tokens, stop=("\nQuestion:",) if self.config.style == "text" else ())
        if self.config.style == "chat":
            answers = [turn.content for turn in model.chat([_conversation(row) for row in rows], how)]
        else:
            answers = model.generate([_prompt(row) for row in rows], how)
        items = []
        for row, answer in zip(rows, answers, strict=True):
            right = final_number(answer)
            gold = final_number(row.data["answer"])
            detail = {"answer": answer, "gold": str(gold)}
            items.append(Item(row.id, row.group, float(right is not None and right == gold), 1.0, detail))
        return items

    def scores(self, items: Sequence[Item]) -> list[Score]:
        """Share of right final numbers."""
        return [scoring.rate("gsm8k", items, f"style {self.config.style}, greedy")]

    def solve(self, rows: Sequence[Row]) -> Solution:
        """The answers of the dataset."""
        if self.config.style == "text":
            return Solution(texts={_prompt(row): _worked(row.data) for row in rows})
        solution = Solution()
        for row in rows:
            solution.add_turn(_conversation(row), Turn("assistant", _worked(row.data)))
        return solution


def _conversation(row: Row) -> Conversation:
    return Conversation((Turn("system", SYSTEM), Turn("user", row.data["question"].strip())))


def _prompt(row: Row) -> str:
    shots = "".join(
        f"Question: {shot['question'].strip()}\nAnswer: {_worked(shot)}\n\n" for shot in row.shots
    )
    return f"{shots}Question: {row.data['question'].strip()}\nAnswer:"


def _worked(data: dict[str, Any]) -> str:
    """The dataset's worked answer without its calculator annotations."""
    return _ANNOTATION.sub("", data["answer"]).strip()
