"""Reads tau-bench's databases, policies and tasks through the dataset registry, once per process.

Files are compared with their checksums by `melete.datasets`; nothing is kept in this repository. A task is one row
(`instruction`, gold `actions`, `outputs` that must be said, `user_id`). A gold action list is data by people and by
a generator and is not always right; which calls fail is found by replaying, never assumed.
"""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import dataclass
from typing import Any

from melete import datasets
from melete.actions.action import ToolAction
from melete.agents.scenarios._tau.journal import Record

DATASET = "tool_tau_bench"


@dataclass(frozen=True)
class Row:
    """One task of the data, as written there."""

    id: str
    user_id: str
    instruction: str
    actions: tuple[ToolAction, ...]
    outputs: tuple[str, ...]


@functools.cache
def tables(shop: str, names: tuple[str, ...]) -> dict[str, dict[str, Record]]:
    """The tables of a shop (`retail`, `airline`), each key to record. They are shared: never write to them.

    Raises:
        DatasetError: the data are not on this machine, or corrupt.
    """
    opened = datasets.open(DATASET)
    found = {}
    for name in names:
        with gzip.open(opened.path(f"{shop}/{name}.json.gz"), "rt", encoding="utf-8") as file:
            found[name] = json.load(file)
    return found


@functools.cache
def policy(shop: str) -> str:
    """The policy of a shop in the words that the agent is given."""
    return datasets.open(DATASET).path(f"{shop}/policy.md").read_text(encoding="utf-8").strip()


@functools.cache
def rows(shop: str, part: str) -> tuple[Row, ...]:
    """The tasks of a part (`train`, `dev`, `test`), in the order of the file."""
    found = datasets.open(DATASET).rows(f"{shop}_{part}")
    return tuple(_row(f"{shop}_{part}_{i}", row) for i, row in enumerate(found))


def _row(row_id: str, row: dict[str, Any]) -> Row:
    """The row as a record; the customer is whom the gold actions look up, which in one row is not `user_id`."""
    actions = tuple(ToolAction(action["name"], action["kwargs"]) for action in row["actions"])
    named = [action.arguments["user_id"] for action in actions if "user_id" in action.arguments]
    user_id = named[-1] if named else row["user_id"]
    return Row(row_id, user_id, row["instruction"].strip(), actions, tuple(row["outputs"]))
