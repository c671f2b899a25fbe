"""RunPod, through SkyPilot."""

from __future__ import annotations

from melete.agents.compute.cloud import Cloud, elsewhere
from melete.agents.compute.target import Target

CLOUD = Cloud("runpod", "runpod", "RTX4090", credentials="pip install runpod; runpod config")


def target(accelerators: str) -> Target:
    """A machine at RunPod; one RTX 4090 where nothing else is asked for."""
    return elsewhere(CLOUD, accelerators)
