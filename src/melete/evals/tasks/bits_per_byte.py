"""Bits per byte on the validation split of text datasets: how many bits the model needs for each byte of new text.

Unlike perplexity per token it does not depend on the tokenizer. Documents are cut into passages, each scored from a
fresh beginning; a passage longer than the context is scored in windows that overlap by half.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pydantic import Field

from melete import datasets
from melete.evals import scoring
from melete.evals.model import LanguageModel, ScoreRequest
from melete.evals.task import Item, Row, Solution, TaskConfig, choose
from melete.records import Score
from melete.settings import Settings

EXAMPLE = {"limit": 1, "datasets": ["stdlib"]}
PASSAGE_CHARS = 4096
MOST_PASSAGES = 4000


class Config(TaskConfig):
    """Options of bits per byte."""

    datasets: list[str] = Field(
        [], description="Text datasets, or paths; the default pretraining text by default."
    )


class Task:
    """See the head of this file; one group per dataset."""

    def __init__(self, config: Config, settings: Settings, seed: int) -> None:
        self.datasets: dict[str, str] = {}
        self.rows: list[Row] = []
        for name in config.datasets or [datasets.default_text(settings)]:
            dataset = datasets.open(name, settings)
            self.datasets[dataset.name] = dataset.fingerprint
            passages = [text for document in dataset.documents("val") for text in _passages(document)]
            limit = min(config.limit or MOST_PASSAGES, MOST_PASSAGES)
            for i in choose(len(passages), limit, seed, dataset.name):
                self.rows.append(Row(f"{dataset.name}/val/{i}", dataset.name, {"text": passages[i]}))

    def evaluate(self, model: LanguageModel, rows: Sequence[Row]) -> list[Item]:
        """Scores whole passages; `value` is in bits, `weight` in bytes."""
        results = model.score([ScoreRequest("", row.data["text"]) for row in rows])
        return [
            Item(
                row.id,
                row.group,
                -result.logprob / math.log(2),
                float(result.bytes),
                {"tokens": result.tokens},
            )
            for row, result in zip(rows, results, strict=True)
        ]

    def scores(self, items: Sequence[Item]) -> list[Score]:
        """Bits per byte of each dataset; lower is better."""
        scores = []
        for group in self.datasets:
            passages = scoring.of_group(items, group)
            size = sum(item.weight for item in passages)
            note = f"lower is better; passages, {size:,.0f} bytes"
            scores.append(scoring.ratio(f"bits_per_byte/{group}", passages, note))
        return scores

    def solve(self, rows: Sequence[Row]) -> Solution:
        """The passages themselves: a perfect model needs no bit."""
        return Solution(continuations={ScoreRequest("", row.data["text"]) for row in rows})


def _passages(document: str) -> Iterator[str]:
    for start in range(0, len(document), PASSAGE_CHARS):
        yield document[start : start + PASSAGE_CHARS]
