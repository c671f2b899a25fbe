"""CORE: the mean centred accuracy over the DCLM core tasks (Li et al., 2024, arXiv:2406.11794, section 3.5).

Centred accuracy is (accuracy - chance) / (1 - chance). The set `eval_core` has 19 of the 22 tasks: CoQA is absent,
Jeopardy and AGI-Eval LSAT-AR have no clear licence, and SQuAD is a subset rendered differently; so the mean here is not
comparable to one over all 22, and the score says which tasks it is over.

Prompts: fields are stripped, examples end with a newline, `context + delimiter + continuation`. Multiple choice takes
the choice, schema the context with the highest log-probability per token; language modelling asks whether every token
of the continuation is the most probable one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from melete import datasets
from melete.errors import ConfigError
from melete.evals import choices, scoring
from melete.evals.choices import Question
from melete.evals.model import LanguageModel, ScoreRequest
from melete.evals.task import FewShot, Item, Row, Solution, TaskConfig, choose
from melete.records import Score
from melete.settings import Settings

DATASET = "eval_core"
EXAMPLE = {"limit": 2, "groups": ["copa", "winograd", "bigbench_operators"]}
SUBSET = "xquad_en_subset"


class Config(TaskConfig):
    """Options of CORE."""

    groups: list[str] = Field([], description="Tasks of CORE by label; all by default.")


class Task:
    """See the head of this file; one group per task of CORE."""

    def __init__(self, config: Config, settings: Settings, seed: int) -> None:
        dataset = datasets.open(DATASET, settings)
        self.datasets = {DATASET: dataset.fingerprint}
        self.forms: dict[str, dict[str, Any]] = {}
        self.absent: list[str] = []
        forms = {str(form["label"]): form for form in dataset.rows("tasks")}
        unknown = sorted(set(config.groups) - set(forms))
        if unknown:
            raise ConfigError(
                f"core: groups: {unknown[0]!r} is not a task of CORE.", allowed=f"Known: {', '.join(forms)}."
            )
        self.total = len(forms)
        self.rows: list[Row] = []
        for label, form in forms.items():
            split = str(form["file"]).rpartition("/")[2].partition(".")[0]
            if form["file"] is None or split not in dataset.splits:
                self.absent.append(label)
            elif not config.groups or label in config.groups:
                self.forms[label] = form
                items = [_stripped(item) for item in dataset.rows(split)]
                shots = FewShot(items, int(form["num_fewshot"]), seed, label)
                chosen = choose(len(items), config.limit, seed, split)
                self.rows += [Row(f"core/{label}/{i}", label, items[i], shots.examples(i)) for i in chosen]

    def evaluate(self, model: LanguageModel, rows: Sequence[Row]) -> list[Item]:
        """Scores all continuations of the rows."""
        questions = [self._question(row) for row in rows]
        open_ended = [len(question.requests) == 1 for question in questions]
        closed = [(r, q) for r, q, is_open in zip(rows, questions, open_ended, strict=True) if not is_open]
        opened = [(r, q) for r, q, is_open in zip(rows, questions, open_ended, strict=True) if is_open]
        items = choices.ask(model, [r for r, _ in closed], [q for _, q in closed], per="token")
        for (row, _), result in zip(opened, model.score([q.requests[0] for _, q in opened]), strict=True):
            detail = {"mean": result.logprob / max(1, result.tokens)} | ({"cut": True} if result.cut else {})
            items.append(Item(row.id, row.group, float(result.greedy), 1.0, detail))
        return items

    def scores(self, items: Sequence[Item]) -> list[Score]:
        """The mean over the groups that have items, then each group."""
        groups, centred, variance = [], [], 0.0
        for label, form in self.forms.items():
            of_group = scoring.of_group(items, label)
            if not of_group:
                continue
            chance = float(form["random_baseline_percent"]) / 100
            score = scoring.rate(f"core/{label}", of_group)
            centre = (score.value - chance) / (1 - chance)
            centred.append(centre)
            # Wilson's interval is never empty, so a group with all wrong still widens the interval of the mean.
            assert score.low is not None
            assert score.high is not None
            variance += ((score.high - score.low) / (2 * scoring.Z) / (1 - chance)) ** 2
            note = scoring.joined(
                f"centred {centre:+.3f}",
                "subset, not comparable" if SUBSET in str(form["file"]) else "",
                scoring.cut_note(of_group),
            )
            groups.append(Score(score.name, score.value, score.count, score.low, score.high, note))
        count = len(centred)
        if not count:
            return [Score("core", 0.0, 0, None, None, "no item")]
        mean, error = sum(centred) / count, scoring.Z * math.sqrt(variance) / count
        note = scoring.joined(
            f"centred mean of {count} of {self.total} tasks",
            f"absent: {', '.join(self.absent)}" if self.absent else "",
        )
        return [Score("core", mean, len(items), mean - error, min(1.0, mean + error), note), *groups]

    def solve(self, rows: Sequence[Row]) -> Solution:
        """The right continuations."""
        return choices.solution([self._question(row) for row in rows])

    def _question(self, row: Row) -> Question:
        form = self.forms[row.group]
        delimiter, kind, data = str(form["delimiter"]), form["type"], row.data
        before = "".join(f"{_example(shot, kind, delimiter)}\n" for shot in row.shots)
        if kind == "multiple_choice":
            context = f"{before}{data['query']}{delimiter}"
            requests = tuple(ScoreRequest(context, choice) for choice in data["choices"])
        elif kind == "schema":
            options = [f"{before}{option}{delimiter}" for option in data["context_options"]]
            requests = tuple(ScoreRequest(option, data["continuation"]) for option in options)
        else:
            requests = (ScoreRequest(f"{before}{data['context']}{delimiter}", data["continuation"]),)
        return Question(requests, int(data.get("gold", 0)))


def _example(shot: dict[str, Any], kind: str, delimiter: str) -> str:
    """A solved example."""
    if kind == "multiple_choice":
        return f"{shot['query']}{delimiter}{shot['choices'][shot['gold']]}"
    if kind == "schema":
        return f"{shot['context_options'][shot['gold']]}{delimiter}{shot['continuation']}"
    return f"{shot['context']}{delimiter}{shot['continuation']}"


def _stripped(item: dict[str, Any]) -> dict[str, Any]:
    def strip(value: Any) -> Any:
        if isinstance(value, str):
            return value.strip()
        return [strip(part) for part in value] if isinstance(value, list) else value

    return {key: strip(value) for key, value in item.items()}
