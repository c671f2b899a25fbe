"""The CPU of this machine."""

from __future__ import annotations

from melete.agents.compute.target import Target


def target(accelerators: str) -> Target:
    """The CPU here; there is nothing to choose."""
    return Target("cpu", "cpu", "asked for")
