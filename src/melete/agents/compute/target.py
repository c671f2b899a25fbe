"""What a target is, what it offers before it is paid for, and who says yes.

A `Target` is either here (`device` is set, the caller works on it) or elsewhere (`launch` hands the job over, follows
its log and brings the checkpoint back). An `Offer` is shown and confirmed before anything is rented.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from melete.errors import GPUNotAvailableError

if TYPE_CHECKING:
    from melete.agents.compute.cloud import Cloud
    from melete.runs.run import Run


@dataclass(frozen=True)
class Offer:
    """What a rented machine would cost.

    Attributes:
        target: name of the target.
        machine: GPUs and where, in words.
        price_per_hour: US dollars, None where nothing is charged by the hour (a cluster of one's own) or it is unknown.
        source: where the price comes from: SkyPilot's catalogue, or an estimate of ours.
        hours: estimated time of the job.
    """

    target: str
    machine: str
    price_per_hour: float | None
    source: str
    hours: float

    @property
    def total(self) -> float | None:
        """Estimated cost of the job in US dollars."""
        return None if self.price_per_hour is None else self.price_per_hour * self.hours

    def describe(self) -> str:
        """The offer in one line; an estimate says that it is one."""
        if self.price_per_hour is None:
            return f"{self.machine}: no price per hour ({self.source}); about {self.hours:g} h."
        return (
            f"{self.machine}: ${self.price_per_hour:.2f} an hour ({self.source}); "
            f"about {self.hours:g} h, so about ${self.total:.2f} (estimate)."
        )


Confirm = Callable[[Offer], bool]
"""Asked before anything is rented."""


@dataclass(frozen=True)
class Target:
    """Where a job runs.

    Attributes:
        name: its name, such as `runpod`.
        device: torch device where the job runs here; empty where it runs elsewhere.
        reason: why this target, in words.
        cloud: how it is reached where it is elsewhere.
    """

    name: str
    device: str
    reason: str
    cloud: Cloud | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether the job is handed over to another machine."""
        return self.cloud is not None

    def launch(
        self,
        process: str,
        values: Mapping[str, Any],
        *,
        run: Run | None = None,
        confirm: Confirm,
        dry_run: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        """Rents a machine, runs the process there, follows its log, and brings its checkpoints into `run`'s folder.

        Args:
            process: name of the process, such as `agents.train`.
            values: its config; `gpu` is set to `local` for the machine it runs on.
            run: the run here, whose folder receives the checkpoints; a dry run needs none.
            confirm: asked with the price before anything is rented.
            dry_run: print the task and end.
            say: prints a line.

        Raises:
            GPUNotAvailableError: no such GPU, no credentials, no SkyPilot, or the price was declined.
            TrainingFailedError: the job failed there; what it had saved was brought back.
        """
        assert self.cloud is not None, f"{self.name} runs here, on {self.device}"
        from melete.agents.compute.renting import launch

        launch(self.cloud, process, values, run=run, confirm=confirm, dry_run=dry_run, say=say)


def asked(yes: bool = False) -> Confirm:
    """Asks on the terminal; `yes` agrees beforehand.

    Raises:
        GPUNotAvailableError: (when asked) nobody can answer, as there is no terminal.
    """

    def confirm(offer: Offer) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise GPUNotAvailableError(
                f"Renting needs a yes, and there is no terminal to ask on. {offer.describe()}",
                next_step="Agree beforehand with --yes, or train here with --gpu local or --gpu cpu.",
            )
        answer = input(f"{offer.describe()}\nRent it? [y/N] ")
        return answer.strip().lower() in ("y", "yes")

    return confirm
