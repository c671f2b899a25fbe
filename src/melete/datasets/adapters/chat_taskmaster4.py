"""Reads Taskmaster-4 coffee orders as conversations with tool calls.

Calls hang on the user turn after which they are made, each using the result of the one before, so each becomes an
assistant turn of its own. The source has no schemas; those here describe its eight functions. A few requests with
doubled quotes are repaired; a dialogue whose request is still not JSON is skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from melete.datasets.adapters._ending import closed
from melete.datasets.dataset import Converse
from melete.records import Conversation, ToolCall, Turn

DOUBLED_QUOTES = re.compile(r'""([^"]+)""')
TEXT: dict[str, Any] = {"type": "string"}
OPTIONS = {"type": "array", "items": {"type": "object"}}


def _function(
    name: str, description: str, required: dict[str, Any], optional: dict[str, Any]
) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {**required, **optional}, "required": list(required)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


_LINE = {"attributes": OPTIONS, "addons": OPTIONS, "notes": TEXT}
TOOLS = [
    _function("show_menu", "Show the menu to the customer.", {}, {}),
    _function(
        "get_menu_items", "Find drinks and food by name.", {"query": TEXT}, {"fields": {"type": "array"}}
    ),
    _function(
        "get_addons", "Find options and extras.", {"query": TEXT}, {"menu_item_id": TEXT, "scope": TEXT}
    ),
    _function(
        "add_order_item",
        "Put an item on the order.",
        {"menu_item_id": TEXT, "quantity": TEXT},
        {"order_id": TEXT, **_LINE},
    ),
    _function(
        "update_order_item",
        "Change an item of the order.",
        {"order_item_id": TEXT},
        {"quantity": TEXT, **_LINE},
    ),
    _function("update_order", "Change the whole order.", {"order_id": TEXT}, {"attributes": OPTIONS}),
    _function("get_order_details", "Show the order.", {"order_id": TEXT}, {}),
    _function("finish_order", "Send the order off.", {"order_id": TEXT}, {}),
]


def reader(locate: Callable[[str], Path]) -> Converse:
    """The function that reads one row; no other file is needed."""
    return _converse


def _converse(row: dict[str, Any]) -> Conversation | None:
    turns: list[Turn] = []
    for said in row["turns"]:
        turns.append(Turn(said["role"], said["text"]))
        for call in said.get("calls", []):
            request = DOUBLED_QUOTES.sub(r'"\1"', call.get("request", "{}"))
            try:
                arguments = json.dumps(json.loads(request), ensure_ascii=False)
            except ValueError:
                return None
            made = ToolCall(f"call_{len(turns)}", call["name"], arguments)
            result = DOUBLED_QUOTES.sub(r'"\1"', call["response"])
            turns += [Turn("assistant", "", (made,)), Turn("tool", result, tool_call_id=made.id)]
    return closed(turns, TOOLS)
