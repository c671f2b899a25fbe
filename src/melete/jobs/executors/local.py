"""A child process on this machine, which sees the GPUs of its slots and no others."""

from __future__ import annotations

from melete.jobs.claims import Claim
from melete.settings import Settings

FORKS = True


def problem(settings: Settings) -> str | None:
    """Nothing is needed."""
    return None


def command(claim: Claim, child: list[str]) -> tuple[list[str], dict[str, str]]:
    """The child itself."""
    return child, {"CUDA_VISIBLE_DEVICES": ",".join(map(str, claim.step.gpus))}
