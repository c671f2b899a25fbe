"""Reads Schema-Guided Dialogue as conversations: service calls become tool calls, service schemas become tools.

A method keeps its own name (`FindRestaurants`); where two services of a dialogue share one, it is prefixed with
its service. Values stay the strings that the source has.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from melete.datasets import readers
from melete.datasets.adapters._ending import closed
from melete.datasets.dataset import Converse
from melete.records import Conversation, ToolCall, Turn

SCHEMA_FILES = ("schema_train.json.gz", "schema_dev.json.gz", "schema_test.json.gz")
SHOWN_VALUES = 6


def reader(locate: Callable[[str], Path]) -> Converse:
    """The function that reads one row; `locate` finds the files of service schemas."""
    services: dict[str, dict[str, Any]] = {}
    for file in SCHEMA_FILES:
        for item in readers.read(locate(file)):
            services.setdefault(item.row()["service_name"], item.row())

    def converse(row: dict[str, Any]) -> Conversation | None:
        methods = [(name, intent) for name in row["services"] for intent in services[name]["intents"]]
        shared = Counter(intent["name"] for _, intent in methods)
        names = {
            (service, intent["name"]): intent["name"]
            if shared[intent["name"]] == 1
            else f"{service}_{intent['name']}"
            for service, intent in methods
        }
        tools = [
            _tool(names[service, intent["name"]], intent, services[service]["slots"])
            for service, intent in methods
        ]
        return closed(_turns(row["turns"], names), tools)

    return converse


def _turns(rows: list[dict[str, Any]], names: dict[tuple[str, str], str]) -> list[Turn]:
    turns: list[Turn] = []
    for row in rows:
        for call, result in zip(row.get("call", []), row.get("result", []), strict=True):
            name = names[call["service"], call["method"]]
            arguments = json.dumps(call["parameters"], ensure_ascii=False)
            made = ToolCall(f"call_{len(turns)}", name, arguments)
            turns.append(Turn("assistant", "", (made,)))
            turns.append(Turn("tool", json.dumps(result, ensure_ascii=False), tool_call_id=made.id))
        turns.append(Turn("user" if row["s"] == "U" else "assistant", row["u"]))
    return turns


def _tool(name: str, intent: dict[str, Any], slots: list[dict[str, Any]]) -> dict[str, Any]:
    described = {slot["name"]: slot for slot in slots}
    properties = {}
    for key in [*intent["required_slots"], *intent["optional_slots"]]:
        schema: dict[str, Any] = {"type": "string"}
        values = described[key]["possible_values"]
        if 0 < len(values) <= SHOWN_VALUES:
            schema["description"] = " | ".join(values)
        properties[key] = schema
    parameters = {"type": "object", "properties": properties, "required": intent["required_slots"]}
    return {
        "type": "function",
        "function": {"name": name, "description": intent["description"] + ".", "parameters": parameters},
    }
