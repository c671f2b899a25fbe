"""Reads Self-Instruct tasks as one question and one answer."""

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
    instance = row["instances"][0]
    question = "\n\n".join(part for part in (row["instruction"], instance["input"]) if part)
    return closed([Turn("user", question), Turn("assistant", instance["output"])], [])
