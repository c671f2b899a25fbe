"""The CUDA device of this machine."""

from __future__ import annotations

from melete.agents.compute import prices
from melete.agents.compute.target import Target
from melete.errors import GPUNotAvailableError


def target(accelerators: str) -> Target:
    """The CUDA device here; `accelerators` is a device number, empty is the first.

    Raises:
        GPUNotAvailableError: there is none.
    """
    devices = cuda_devices()
    number = int(accelerators) if accelerators.isdecimal() else 0
    if number >= len(devices):
        found = f"This machine has {len(devices)} CUDA devices, no number {number}." if devices else (
            "This machine has no CUDA device."
        )  # fmt: skip
        raise GPUNotAvailableError(
            found,
            allowed=f"Rented ones (estimates): {prices.overview()}.",
            next_step="Use --gpu cpu to train on the CPU, or one of these providers, such as --gpu runpod.",
        )
    return Target("local", f"cuda:{number}", f"{devices[number]} in this machine")


def cuda_devices() -> list[str]:
    """Names of the CUDA devices here."""
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
