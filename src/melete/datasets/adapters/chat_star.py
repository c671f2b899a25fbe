"""Reads STAR dialogues as conversations: API calls become tool calls, API definitions become tool schemas.

Instructions to the crowd worker in the user's role are dropped; the task of the one in the agent's role is the system
message. A filter of an argument, such as `api.is_at_most(900)`, becomes `{"at_most": 900}`; equality is the plain
value. The tools on offer are those of the tasks that the dialogue is about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from melete.datasets import readers
from melete.datasets.adapters._ending import closed
from melete.datasets.dataset import Converse
from melete.records import Conversation, ToolCall, Turn

FILTER = re.compile(r"api\.(?:is_)?(\w+)\((.*)\)$", re.DOTALL)
JSON_TYPES = {
    "Integer": ["integer", "object"],
    "Boolean": "boolean",
    "ShortString": "string",
    "LongString": "string",
}
SHOWN_VALUES = 6


def reader(locate: Callable[[str], Path]) -> Converse:
    """The function that reads one row; `locate` finds the file of API definitions."""
    apis = definitions(locate)
    tools = {name: tool(name, api) for name, api in apis.items()}
    types = {name: {p["Name"]: p["Type"] for p in api["input"]} for name, api in apis.items()}

    def converse(row: dict[str, Any]) -> Conversation | None:
        offered = sorted({part["task"] for part in row["capabilities"]})
        turns = _turns(row["events"], types)
        goal = row["wizard_task"].replace("Follow the flow charts and help", "Help").strip()
        if goal:
            turns.insert(0, Turn("system", goal))
        return closed(turns, [tools[name] for name in offered if name in tools])

    return converse


def definitions(locate: Callable[[str], Path]) -> dict[str, dict[str, Any]]:
    """API definitions by name, as they lie in the file: `input` parameters with types and limits, `required` ones."""
    rows = [item.row() for item in readers.read(locate("apis.jsonl.gz"))]
    return {row["path"].split("/")[-1].removesuffix(".json"): row["data"] for row in rows}


def _turns(events: list[dict[str, Any]], types: dict[str, dict[str, str]]) -> list[Turn]:
    turns: list[Turn] = []
    for event in events:
        match event["role"]:
            case "user":
                turns.append(Turn("user", event["text"]))
            case "agent":
                turns.append(Turn("assistant", event["text"]))
            case "agent_call":
                call = ToolCall(f"call_{len(turns)}", event["api"], _arguments(event, types[event["api"]]))
                turns.append(Turn("assistant", "", (call,)))
            case "api_result":
                item = {key: value for key, value in event.get("Item", {}).items() if key != "APIName"}
                content = json.dumps(item or {"found": 0}, ensure_ascii=False)
                turns.append(Turn("tool", content, tool_call_id=turns[-1].tool_calls[0].id))
            case _:  # an instruction to the worker
                pass
    return turns


def _arguments(event: dict[str, Any], types: dict[str, str]) -> str:
    arguments: dict[str, Any] = {}
    for part in event["args"]:
        for name, written in part.items():
            value = _value(written, types.get(name, "ShortString"))
            if isinstance(value, dict) and isinstance(arguments.get(name), dict):
                arguments[name] |= value  # two filters on one argument
            elif value is not None:
                arguments[name] = value
    return json.dumps(arguments, ensure_ascii=False)


def _value(written: str, kind: str) -> Any:
    found = FILTER.match(written.strip())
    operator, text = found.groups() if found else ("equal_to", written.strip())
    try:
        value = json.loads({"True": "true", "False": "false"}.get(text, text))
    except ValueError:
        value = text  # a number with leading zeros, such as a PIN
    if operator != "equal_to":
        return {operator: value}
    if isinstance(value, list):
        return {"one_of": value}
    if kind == "Integer" and isinstance(value, str) and value.strip().isdigit():
        return int(value)
    if value is not None and kind in ("ShortString", "LongString"):
        return str(value)
    return value


def tool(name: str, api: dict[str, Any]) -> dict[str, Any]:
    """An API definition as a tool in OpenAI's form."""
    properties = {}
    for parameter in api["input"]:
        schema: dict[str, Any] = {"type": JSON_TYPES.get(parameter["Type"], ["string", "object"])}
        values = parameter.get("Categories") or []
        if 0 < len(values) <= SHOWN_VALUES:
            schema["description"] = " | ".join(values)
        properties[parameter["Name"]] = schema
    description = name.replace("_", " ").capitalize() + "."
    parameters = {"type": "object", "properties": properties, "required": api["required"]}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }
