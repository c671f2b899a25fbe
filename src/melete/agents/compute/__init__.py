"""Where a job's GPU comes from: this machine, or one rented through SkyPilot; `auto` never rents.

    target = compute.resolve(config.gpu)          # auto, local, cpu, runpod, lambda, kubernetes, slurm
    if target.elsewhere:
        target.launch("agents.train", values, run=run, confirm=compute.asked(yes=config.yes))
    else:
        train_on(target.device)

A target is a file in `targets/` and its name is its id. `auto` is the CUDA device of this machine where there is one
and the CPU otherwise, and says which and why. A target elsewhere becomes a SkyPilot task (`task.py`); nothing is rented
before its price was shown and confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melete import find
from melete.agents.compute.target import Confirm, Offer, Target, asked

TARGETS = "melete.agents.compute.targets"
AUTO = "auto"

__all__ = ["Confirm", "Offer", "Target", "asked", "names", "plan", "resolve"]


def names() -> list[str]:
    """What `gpu` may be."""
    return [AUTO, *find.names(TARGETS)]


def resolve(gpu: str) -> Target:
    """The target that a `gpu` option means.

    Args:
        gpu: `auto`, or the name of a file in `targets/`; `name:GPU` asks for a kind of GPU, such as `runpod:H100` or
            `kubernetes:A100:8`.

    Raises:
        UnknownNameError: no such target.
        GPUNotAvailableError: `local` where this machine has no CUDA device.
    """
    name, _, accelerators = gpu.partition(":")
    if name == AUTO:
        return _here()
    target: Target = find.load(TARGETS, name, "GPU target").target(accelerators)
    return target


def plan(gpu: str, process: str, values: Mapping[str, Any]) -> list[tuple[str, object, str]]:
    """Rows for a `--dry-run`: where it would run and why; elsewhere also the price and the SkyPilot task.

    Raises:
        MeleteError: no such target, or the job could not be handed over.
    """
    target = resolve(gpu)
    if target.cloud is None:
        return [("runs on", target.device, target.reason)]
    from melete.agents.compute.renting import preview

    *lines, price = preview(target.cloud, process, values)
    rows: list[tuple[str, object, str]] = [("runs on", target.name, target.reason)]
    rows += [("price", price.removeprefix("# "), "shown and confirmed before anything is rented")]
    return rows + [(" " if i else "task", line, " ") for i, line in enumerate(lines)]


def _here() -> Target:
    from melete.agents.compute.targets import local

    if local.cuda_devices():
        return local.target("")
    return Target(
        AUTO, "cpu", "no CUDA device here; auto never rents one (name a provider, such as gpu: runpod)"
    )
