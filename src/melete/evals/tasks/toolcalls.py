"""Tool calls: does the model call the right tool with the right values, in conversations that training never saw?

For every turn of the assistant the model is given what came before it. Three shares, each with its count and interval:
`toolcalls` (the call due was made, name and arguments exactly), `toolcalls/restraint` (no call was made where none was
due) and `toolcalls/reliability` (of all calls the model proposed, those to an offered tool with arguments that its
schema allows). Tools are not executed here, so the last one is an upper bound of tool reliability in an episode.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from melete import datasets
from melete.evals import scoring
from melete.evals.model import Generate, LanguageModel
from melete.evals.task import Item, Row, Solution, TaskConfig, choose
from melete.records import Conversation, Score, ToolCall, Turn
from melete.settings import Settings

DATASET = "toolcalls"
EXAMPLE = {"limit": 4, "max_tokens": 8}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
    "object": (dict,), "null": (type(None),),
}  # fmt: skip


class Config(TaskConfig):
    """Options of tool calls; the limit is of conversations."""

    max_tokens: int = Field(96, ge=1, description="Longest turn in tokens.")


class Task:
    """See the head of this file; groups are `call` and `talk`, by what is due."""

    def __init__(self, config: Config, settings: Settings, seed: int) -> None:
        dataset = datasets.open(DATASET, settings)
        self.config = config
        self.datasets = {DATASET: dataset.fingerprint}
        conversations = list(dataset.conversations("val"))
        self.rows = []
        for i in choose(len(conversations), config.limit, seed, DATASET):
            for j, turn in enumerate(conversations[i].turns):
                if turn.role == "assistant":
                    before = Conversation(conversations[i].turns[:j], conversations[i].tools)
                    data = {"before": before, "due": turn}
                    self.rows.append(
                        Row(f"toolcalls/val/{i}/{j}", "call" if turn.tool_calls else "talk", data)
                    )

    def evaluate(self, model: LanguageModel, rows: Sequence[Row]) -> list[Item]:
        """Compares the turn the model writes with the one that is due."""
        turns = model.chat([row.data["before"] for row in rows], Generate(self.config.max_tokens))
        items = []
        for row, turn in zip(rows, turns, strict=True):
            due: Turn = row.data["due"]
            sound = [fits(call, row.data["before"].tools) for call in turn.tool_calls]
            right = [_plain(call) for call in turn.tool_calls] == [_plain(call) for call in due.tool_calls]
            detail = {
                "content": turn.content,
                "calls": [{"name": call.name, "arguments": call.arguments} for call in turn.tool_calls],
                "due": [{"name": call.name, "arguments": call.arguments} for call in due.tool_calls],
                "sound": sound,
            }
            items.append(Item(row.id, row.group, float(right), 1.0, detail))
        return items

    def scores(self, items: Sequence[Item]) -> list[Score]:
        """Exact calls, restraint, reliability."""
        proposed = [
            Item(f"{item.id}/{i}", "proposed", float(ok))
            for item in items
            for i, ok in enumerate(item.detail["sound"])
        ]
        return [
            scoring.rate("toolcalls", scoring.of_group(items, "call"), "name and arguments exact"),
            scoring.rate("toolcalls/restraint", scoring.of_group(items, "talk"), "no call where none is due"),
            scoring.rate("toolcalls/reliability", proposed, "proposed calls that fit a tool; not executed"),
        ]

    def solve(self, rows: Sequence[Row]) -> Solution:
        """The turns that are due."""
        solution = Solution()
        for row in rows:
            solution.add_turn(row.data["before"], row.data["due"])
        return solution


def fits(call: ToolCall, tools: Sequence[dict[str, Any]]) -> bool:
    """Whether a call names an offered tool and its arguments fit the tool's schema (names, presence, types, enums)."""
    functions = [tool.get("function", tool) for tool in tools]
    function = next((f for f in functions if f["name"] == call.name), None)
    arguments = _arguments(call)
    if function is None or not isinstance(arguments, dict):
        return False
    schema = function.get("parameters", {})
    properties = schema.get("properties", {})
    if not set(schema.get("required", ())) <= set(arguments) <= set(properties):
        return False
    return all(_allowed(value, properties[name]) for name, value in arguments.items())


def _allowed(value: Any, schema: dict[str, Any]) -> bool:
    if "enum" in schema and value not in schema["enum"]:
        return False
    kind = schema.get("type")
    if kind is None:
        return True
    wanted = [kind] if isinstance(kind, str) else kind
    return any(
        isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
        for name in wanted
    )


def _plain(call: ToolCall) -> tuple[str, str]:
    return call.name, json.dumps(_arguments(call), sort_keys=True)


def _arguments(call: ToolCall) -> Any:
    """The arguments as JSON, so that key order and spaces do not matter; the raw text if they are not JSON."""
    try:
        return json.loads(call.arguments)
    except ValueError:
        return call.arguments
