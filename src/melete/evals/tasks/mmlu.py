"""MMLU: four-way questions in 57 subjects, five-shot, the letter is scored (Hendrycks et al., 2021, arXiv:2009.03300).

Prompt: `The following are multiple choice questions (with answers) about <subject>.`, a blank line, five solved
questions of the subject from the dev split, then the question with its choices and `Answer:`; the continuations are the
four letters. The headline is over all items, not the mean of subjects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from melete import datasets
from melete.evals import choices, scoring
from melete.evals.choices import Question
from melete.evals.model import LanguageModel, ScoreRequest
from melete.evals.task import Item, Row, Solution, TaskConfig, choose
from melete.records import Score
from melete.settings import Settings

DATASET = "eval_mmlu"
EXAMPLE = {"limit": 4}
LETTERS = "ABCD"


class Config(TaskConfig):
    """Options of MMLU; the limit is over all subjects together."""


class Task:
    """See the head of this file; one group per subject."""

    def __init__(self, config: Config, settings: Settings, seed: int) -> None:
        dataset = datasets.open(DATASET, settings)
        self.datasets = {DATASET: dataset.fingerprint}
        examples: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in dataset.rows("dev"):
            examples[row["subject"]].append(row)
        questions = list(dataset.rows("test"))
        chosen = choose(len(questions), config.limit, seed, "mmlu")
        self.rows = []
        for i in chosen:
            subject = questions[i]["subject"]
            self.rows.append(Row(f"mmlu/{i}", subject, questions[i], tuple(examples[subject])))

    def evaluate(self, model: LanguageModel, rows: Sequence[Row]) -> list[Item]:
        """Scores the four letters of each question."""
        return choices.ask(model, rows, [_question(row) for row in rows], per="token")

    def scores(self, items: Sequence[Item]) -> list[Score]:
        """Accuracy over all items."""
        return [scoring.rate("mmlu", items, scoring.joined("chance 0.250", scoring.cut_note(items)))]

    def solve(self, rows: Sequence[Row]) -> Solution:
        """The right letters."""
        return choices.solution([_question(row) for row in rows])


def _question(row: Row) -> Question:
    subject = row.group.replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    shots = "".join(f"{_ask(shot)} {LETTERS[shot['gold']]}\n\n" for shot in row.shots)
    context = f"{head}{shots}{_ask(row.data)} "
    return Question(tuple(ScoreRequest(context, letter) for letter in LETTERS), int(row.data["gold"]))


def _ask(data: dict[str, Any]) -> str:
    listed = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, data["choices"], strict=True)]
    return "\n".join([data["question"].strip(), *listed, "Answer:"])
