"""A Slurm cluster of your own, through SkyPilot; nothing is charged by the hour, and its queue decides when."""

from __future__ import annotations

from melete.agents.compute.cloud import Cloud, elsewhere
from melete.agents.compute.target import Target

CLOUD = Cloud(
    "slurm",
    "slurm",
    "A100",
    priced=False,
    autostop=False,
    credentials="a host in ~/.slurm/config, in SSH's format",
)


def target(accelerators: str) -> Target:
    """An allocation with GPUs; one A100 where nothing else is asked for."""
    return elsewhere(CLOUD, accelerators)
