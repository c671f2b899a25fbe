"""Reads Topical-Chat as conversations: who speaks first is the user, the other one the assistant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from melete.datasets.adapters._ending import closed
from melete.datasets.dataset import Converse
from melete.records import Conversation, Turn


def reader(locate: Callable[[str], Path]) -> Converse:
    """The function that reads one row; no other file is needed."""
    return _converse


def _converse(row: dict[str, Any]) -> Conversation | None:
    first = row["turns"][0]["agent"]
    turns = [Turn("user" if t["agent"] == first else "assistant", t["text"].strip()) for t in row["turns"]]
    return closed(turns, [])
