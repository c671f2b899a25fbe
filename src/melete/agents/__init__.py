"""Agents: scenarios with tools, practice until tool calls succeed, adapters to frameworks, deployment.

A scenario is a file in `scenarios/`, a hub one in `hubs/`, a framework adapter one in `frameworks/`. What a scenario is
stands in `scenario.py`; `environment.py` plays it under its guard, `train.py` practises it. From Python: `Trainer` and
`TrainedAgent`, imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melete.agents.trained import TrainedAgent
    from melete.agents.trainer import Trainer, TrainingResult

__all__ = ["TrainedAgent", "Trainer", "TrainingResult"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from melete.agents import trained, trainer

    return getattr(trained if name == "TrainedAgent" else trainer, name)
