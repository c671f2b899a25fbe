"""Tables that all episodes share, and the records that one episode changed.

A record is copied when it is first edited, so that an episode costs what it touches and not the whole database, and
its state is a small JSON object that can be copied, compared and hashed. Limit: records are added and edited, never
deleted, because no tool of tau-bench deletes one.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

Record = dict[str, Any]
Tables = Mapping[str, Mapping[str, Record]]


class Journal:
    """A database of one episode over tables that it never writes to.

    Args:
        tables: table name to key to record, as loaded.
        changed: the same shape with the records of this episode; filled by `edit` and `add`.
    """

    def __init__(self, tables: Tables, changed: dict[str, dict[str, Record]] | None = None) -> None:
        self.tables = tables
        self.changed: dict[str, dict[str, Record]] = {} if changed is None else changed

    def get(self, table: str, key: str) -> Record | None:
        """The record to read, or None; it must not be written to."""
        mine = self.changed.get(table)
        if mine is not None and key in mine:
            return mine[key]
        return self.tables[table].get(key)

    def edit(self, table: str, key: str) -> Record:
        """The record to write to; the key exists."""
        mine = self.changed.setdefault(table, {})
        if key not in mine:
            mine[key] = copy.deepcopy(self.tables[table][key])
        return mine[key]

    def add(self, table: str, key: str, record: Record) -> None:
        """Adds a record under a new key."""
        assert self.get(table, key) is None, key
        self.changed.setdefault(table, {})[key] = record


def differences(tables: Tables, changed: Mapping[str, Mapping[str, Record]]) -> dict[str, dict[str, Record]]:
    """The changed records that differ from the tables: an edit that was undone is no difference."""
    found = {
        table: {key: record for key, record in records.items() if tables[table].get(key) != record}
        for table, records in changed.items()
    }
    return {table: records for table, records in found.items() if records}


def digest(tables: Tables, changed: Mapping[str, Mapping[str, Record]]) -> str:
    """sha256 over the canonical JSON of what differs: equal digests are equal databases."""
    text = json.dumps(differences(tables, changed), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def cents(amount: float) -> float:
    """An amount of money rounded to cents, so that the order of additions does not show."""
    return round(amount, 2) + 0.0  # no negative zero
