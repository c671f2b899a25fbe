"""BFCL: single-turn function calling of the Berkeley leaderboard, version 4, scored by its AST-style match.

Asked are the single-turn categories whose questions are in the data: one call (`simple_*`, `live_simple`), one call
with a choice of functions (`multiple`), several calls (`parallel`, `parallel_multiple`), the same from real users
(`live_*`), and whether a call is made where none fits (`irrelevance`: no call may be proposed) and where one does
(`relevance`: at least one call of an offered function). `melete.evals.bfcl.match` states the rules. A category
without data is named as missing.

The headline is the share of all items that are right; the leaderboard itself averages its categories, each of which
is a score of its own here. Multi-turn categories need its simulated programs and are not asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from melete import datasets
from melete.errors import ConfigError
from melete.evals import scoring
from melete.evals.bfcl import match, tools
from melete.evals.model import Generate, LanguageModel
from melete.evals.task import Item, Row, Solution, TaskConfig, choose
from melete.records import Conversation, Score, ToolCall, Turn
from melete.settings import Settings

DATASET = "tool_bfcl_v4"
LANGUAGES = {"simple_java": "Java", "simple_javascript": "JavaScript"}
CALLS = (
    "simple_python", "simple_java", "simple_javascript", "multiple", "parallel", "parallel_multiple",
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple",
)  # fmt: skip
NO_CALL = ("irrelevance", "live_irrelevance")
SOME_CALL = ("live_relevance",)
CATEGORIES = (*CALLS, *NO_CALL, *SOME_CALL)
EXAMPLE = {"limit": 2, "max_tokens": 8}


class Config(TaskConfig):
    """Options of BFCL; the limit is per category."""

    categories: list[str] = Field([], description="Categories to ask; empty is all that have data.")
    max_tokens: int = Field(512, ge=1, description="Longest answer in tokens.")


class Task:
    """See the head of this file; groups are the categories."""

    def __init__(self, config: Config, settings: Settings, seed: int) -> None:
        unknown = [name for name in config.categories if name not in CATEGORIES]
        if unknown:
            raise ConfigError(
                f"{unknown[0]!r} is not a single-turn category of BFCL.",
                allowed=f"Categories: {', '.join(CATEGORIES)}.",
            )
        dataset = datasets.open(DATASET, settings)
        self.config = config
        self.datasets = {DATASET: dataset.fingerprint}
        wanted = [name for name in CATEGORIES if not config.categories or name in config.categories]
        self.missing = [name for name in wanted if name not in dataset.splits]
        self.rows: list[Row] = []
        for category in wanted:
            if category in self.missing:
                continue
            questions = list(dataset.rows(category))
            if category in CALLS:
                answers = {row["id"]: row["ground_truth"] for row in dataset.rows(f"answer_{category}")}
                questions = [{**row, "answers": answers[row["id"]]} for row in questions]
            chosen = choose(len(questions), config.limit, seed, f"bfcl/{category}")
            self.rows += [Row(f"bfcl/{questions[i]['id']}", category, questions[i]) for i in chosen]

    def evaluate(self, model: LanguageModel, rows: Sequence[Row]) -> list[Item]:
        """Compares the calls that the model proposes with the possible answers."""
        turns = model.chat([conversation(row) for row in rows], Generate(self.config.max_tokens))
        items = []
        for row, turn in zip(rows, turns, strict=True):
            detail = {
                "content": turn.content,
                "calls": [{"name": call.name, "arguments": call.arguments} for call in turn.tool_calls],
                "due": row.data.get("answers", "no call" if row.group in NO_CALL else "a call"),
            }
            items.append(Item(row.id, row.group, float(right(row, turn.tool_calls)), 1.0, detail))
        return items

    def scores(self, items: Sequence[Item]) -> list[Score]:
        """All items, those where calls are due, those where none is, then each category."""
        absent = f"no data for {', '.join(self.missing)}" if self.missing else ""
        calls = [item for item in items if item.group in CALLS]
        none = [item for item in items if item.group in NO_CALL]
        scores = [
            scoring.rate("bfcl", items, scoring.joined("share of items, greedy", absent)),
            scoring.rate("bfcl/calls", calls, "calls due: name and arguments match"),
            scoring.rate("bfcl/restraint", none, "no call where none fits"),
        ]
        groups = [category for category in CATEGORIES if category in {row.group for row in self.rows}]
        return scores + [scoring.rate(f"bfcl/{name}", scoring.of_group(items, name)) for name in groups]

    def solve(self, rows: Sequence[Row]) -> Solution:
        """The first possible answer of each question."""
        solution = Solution()
        for row in rows:
            solution.add_turn(conversation(row), _due(row))
        return solution


def conversation(row: Row) -> Conversation:
    """What the model is asked: the messages of the question and its functions as tools."""
    language = LANGUAGES.get(row.group, "")
    offered = tuple(tools.tool(function, language) for function in row.data["function"])
    (messages,) = row.data["question"]
    return Conversation(tuple(Turn.from_openai(message) for message in messages), offered)


def right(row: Row, calls: Sequence[ToolCall]) -> bool:
    """Whether the proposed calls are what the question asks for."""
    if row.group in NO_CALL:
        return not calls
    if row.group in SOME_CALL:
        offered = {match.offered_name(function["name"]) for function in row.data["function"]}
        return any(match.offered_name(call.name) in offered for call in calls)
    return match.calls_match(calls, row.data["answers"], row.data["function"], row.group in LANGUAGES)


def first_call(answer: match.Answer, functions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Name and arguments of the call that takes the first allowed value of each argument that has one."""
    ((name, allowed),) = answer.items()
    parameters = next(function["parameters"] for function in functions if function["name"] == name)
    known, required = parameters.get("properties", {}), parameters.get("required", ())
    arguments = {key: _first(some) for key, some in allowed.items() if key in known}
    kept = {key: value for key, value in arguments.items() if value != "" or key in required}
    return {"name": match.offered_name(name), "arguments": kept}


def _due(row: Row) -> Turn:
    if row.group in NO_CALL:
        return Turn("assistant", "None of the functions fits this request.")
    if row.group in SOME_CALL:
        name = match.offered_name(row.data["function"][0]["name"])
        return Turn("assistant", "", (ToolCall("call_0", name, "{}"),))
    found = [first_call(answer, row.data["function"]) for answer in row.data["answers"]]
    return Turn(
        "assistant",
        "",
        tuple(
            ToolCall(f"call_{i}", call["name"], json.dumps(call["arguments"])) for i, call in enumerate(found)
        ),
    )


def _first(allowed: Any) -> Any:
    """The first allowed value that is not "may be left out", as plain JSON."""
    some = allowed if isinstance(allowed, list) else [allowed]
    return _plain_value(next((value for value in some if value != ""), ""))


def _plain_value(value: Any) -> Any:
    """An allowed value with each list of allowed values inside it replaced by its first."""
    if isinstance(value, dict):
        first = {key: _first(some) for key, some in value.items()}
        return {key: part for key, part in first.items() if part != ""}
    if isinstance(value, list):
        return [_plain_value(part) for part in value]
    return value
