"""A Kubernetes cluster of your own, through SkyPilot; nothing is charged by the hour."""

from __future__ import annotations

from melete.agents.compute.cloud import Cloud, elsewhere
from melete.agents.compute.target import Target

CLOUD = Cloud("kubernetes", "k8s", "A100", priced=False, credentials="a context in ~/.kube/config")


def target(accelerators: str) -> Target:
    """A pod with GPUs; one A100 where nothing else is asked for."""
    return elsewhere(CLOUD, accelerators)
