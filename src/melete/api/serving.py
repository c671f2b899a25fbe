"""What the API may know of the server around it: which models are loaded, and the deployed agents that it offers.

The server of models is a system and is not imported here; whoever starts both hands this over. A server without models
has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from melete.serve.agents import Agents
    from melete.serve.models import ServedModel


def _no_models() -> Mapping[str, ServedModel]:
    return {}


def _no_agents() -> Agents | None:
    return None


@dataclass(frozen=True)
class Serving:
    """Looks at the models and agents of this server; both may come and go.

    Attributes:
        models: id to loaded model, now.
        agents: what loads deployed agents; None while nothing of it was imported.
    """

    models: Callable[[], Mapping[str, ServedModel]] = _no_models
    agents: Callable[[], Agents | None] = _no_agents

    def served_as(self) -> dict[tuple[str, str], list[str]]:
        """Ids of the loaded models by run id and folder name of their checkpoint."""
        found: dict[tuple[str, str], list[str]] = {}
        for name, model in list(self.models().items()):
            if model.checkpoint is not None:
                key = (model.checkpoint.parent.parent.name, model.checkpoint.name)
                found.setdefault(key, []).append(name)
        return found
