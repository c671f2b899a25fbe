"""Lambda Cloud, through SkyPilot."""

from __future__ import annotations

from melete.agents.compute.cloud import Cloud, elsewhere
from melete.agents.compute.target import Target

CLOUD = Cloud("lambda", "lambda", "A10", credentials="write 'api_key = …' to ~/.lambda_cloud/lambda_keys")


def target(accelerators: str) -> Target:
    """A machine at Lambda; one A10 where nothing else is asked for."""
    return elsewhere(CLOUD, accelerators)
