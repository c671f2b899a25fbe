"""ARC-Easy: school science questions that a word search can answer, zero-shot; see `melete.evals.arc`."""

from __future__ import annotations

from melete.evals.arc import Arc
from melete.evals.task import TaskConfig
from melete.settings import Settings

EXAMPLE = {"limit": 2}


class Config(TaskConfig):
    """Options of ARC."""


class Task(Arc):
    """The set `arc_easy`."""

    def __init__(self, config: Config, settings: Settings, seed: int) -> None:
        super().__init__("arc_easy", config, settings, seed)
