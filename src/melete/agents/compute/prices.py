"""What a GPU costs an hour where SkyPilot's catalogue cannot be asked: a small table, always called an estimate."""

from __future__ import annotations

from functools import cache

import yaml

from melete import find

ESTIMATE = "estimate from a table of 2025"


@cache
def table() -> dict[str, dict[str, float]]:
    """Provider to GPU to US dollars an hour for one."""
    text = find.path("melete.agents.compute", "prices", "price table").read_text(encoding="utf-8")
    prices: dict[str, dict[str, float]] = yaml.safe_load(text)
    return prices


def estimate(provider: str, gpu: str) -> float | None:
    """US dollars an hour for one GPU of this kind; None where the table has none."""
    return table().get(provider, {}).get(gpu)


def overview() -> str:
    """Each provider with its cheapest and dearest GPU, in one line."""
    parts = []
    for provider, gpus in table().items():
        cheap, dear = (choose(gpus, key=lambda gpu: gpus[gpu]) for choose in (min, max))
        parts.append(f"{provider} from ${gpus[cheap]:.2f} ({cheap}) to ${gpus[dear]:.2f} ({dear}) an hour")
    return "; ".join(parts)
