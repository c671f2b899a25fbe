"""The GPUs of this machine, asked of the driver, so that a worker needs no torch."""

from __future__ import annotations

import os

from melete.errors import DeviceError
from melete.runs import provenance


def gpus() -> list[int]:
    """Numbers of the GPUs that this program may use: those of `CUDA_VISIBLE_DEVICES` where it is set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(range(len(provenance.gpus())))
    return [int(part) for part in visible.split(",") if part.strip().isdecimal()]


def chosen(wanted: str) -> tuple[int, ...]:
    """The GPUs that a worker was told to use.

    Args:
        wanted: `auto` (all there are), `none`, or numbers such as `0,1`.

    Raises:
        DeviceError: one is not there.
    """
    if wanted == "none":
        return ()
    here = gpus()
    if wanted == "auto":
        return tuple(here)
    numbers = [int(part) if part.strip().isdecimal() else None for part in wanted.split(",")]
    missing = [part for part, number in zip(wanted.split(","), numbers, strict=True) if number not in here]
    if missing:
        raise DeviceError(
            f"This machine has no GPU {missing[0].strip()!r}.",
            allowed=f"It has: {', '.join(map(str, here)) or 'none'}.",
            next_step="Use --gpus auto, or --gpus none for a worker on the CPU.",
        )
    return tuple(dict.fromkeys(number for number in numbers if number is not None))
