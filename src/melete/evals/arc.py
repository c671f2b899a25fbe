"""The ARC tasks, easy and challenge (Clark et al., 2018, arXiv:1803.05457), zero-shot; `tasks/arc_*.py` name a split.

Prompt: `Question: …`, a new line, `Answer: ` and then each choice in full; the choice with the highest log-probability
per byte is the answer. CORE asks the same questions ten-shot and per token.
"""

from __future__ import annotations

from collections.abc import Sequence

from melete import datasets
from melete.evals import choices, scoring
from melete.evals.choices import Question
from melete.evals.model import LanguageModel, ScoreRequest
from melete.evals.task import Item, Row, Solution, TaskConfig, choose
from melete.records import Score
from melete.settings import Settings

DATASET = "eval_core"


class Arc:
    """One of the two sets, by the name of its split in `eval_core`."""

    def __init__(self, split: str, config: TaskConfig, settings: Settings, seed: int) -> None:
        dataset = datasets.open(DATASET, settings)
        self.split = split
        self.datasets = {DATASET: dataset.fingerprint}
        questions = list(dataset.rows(split))
        chosen = choose(len(questions), config.limit, seed, split)
        self.rows = [Row(f"{split}/{i}", split, questions[i]) for i in chosen]

    def evaluate(self, model: LanguageModel, rows: Sequence[Row]) -> list[Item]:
        """Scores all choices."""
        return choices.ask(model, rows, [_question(row) for row in rows], per="byte")

    def scores(self, items: Sequence[Item]) -> list[Score]:
        """Accuracy."""
        return [scoring.rate(self.split, items, scoring.joined("chance 0.25", scoring.cut_note(items)))]

    def solve(self, rows: Sequence[Row]) -> Solution:
        """The right choices."""
        return choices.solution([_question(row) for row in rows])


def _question(row: Row) -> Question:
    context = f"{row.data['query'].strip()}\nAnswer: "
    options = tuple(ScoreRequest(context, choice.strip()) for choice in row.data["choices"])
    return Question(options, int(row.data["gold"]))
