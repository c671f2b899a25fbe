"""Multiple choice by probability: every choice is scored as a continuation and the most probable one is the answer.

Long choices would lose by their length alone, so the log-probability is divided by the number of tokens (as in DCLM
and llm-foundry) or of bytes (as in the `acc_norm` of lm-evaluation-harness, which does not depend on the tokenizer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from melete.evals.model import LanguageModel, ScoreRequest
from melete.evals.task import Item, Row, Solution


@dataclass(frozen=True)
class Question:
    """One request per choice and the index of the right one."""

    requests: tuple[ScoreRequest, ...]
    gold: int


def ask(
    model: LanguageModel,
    rows: Sequence[Row],
    questions: Sequence[Question],
    per: Literal["token", "byte"],
) -> list[Item]:
    """Scores all choices of all questions in one call; one item per row."""
    flat = [request for question in questions for request in question.requests]
    results = iter(model.score(flat))
    items = []
    for row, question in zip(rows, questions, strict=True):
        scored = [next(results) for _ in question.requests]
        means = [r.logprob / max(1, r.tokens if per == "token" else r.bytes) for r in scored]
        chosen = max(range(len(means)), key=means.__getitem__)
        detail: dict[str, Any] = {"chosen": chosen, "gold": question.gold, "means": means}
        if any(r.cut for r in scored):
            detail["cut"] = True
        items.append(Item(row.id, row.group, float(chosen == question.gold), 1.0, detail))
    return items


def solution(questions: Sequence[Question]) -> Solution:
    """The right continuations."""
    return Solution(continuations={question.requests[question.gold] for question in questions})
