"""Refuses `torchrun`: the processes of agents run in one process each, and ranks would play everything once more.

Practice has one engine, one hub and one trace. A model that needs several GPUs is handed over (`verl.py`).
"""

from __future__ import annotations

import os

from melete.errors import ConfigError


def require_one_process(what: str, otherwise: str | None = None) -> None:
    """Nothing, outside `torchrun`.

    Args:
        what: is done in one process.
        otherwise: what there is for whoever has several devices.

    Raises:
        ConfigError: `torchrun` started several ranks.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        raise ConfigError(
            f"{what} runs in one process, and torchrun started {ranks}.",
            allowed=otherwise,
            next_step="Start it without torchrun.",
        )
