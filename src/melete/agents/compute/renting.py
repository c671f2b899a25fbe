"""Runs a job on a machine that is rented for it: price, yes, log, checkpoint back, machine given back.

    1. the task is built from the config, so what is wrong with it is said before anything else
    2. SkyPilot is asked for access and price; the price is shown and confirmed
    3. the machine is made ready, the job runs, its log comes here
    4. its runs are copied into this run's folder, whatever happened, and the newest checkpoint becomes this run's
    5. the machine is given back; were this process killed, it would end itself after some idle minutes

A machine whose checkpoint could not be copied is not given back: the message says how to do both by hand.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melete import settings as settings_module
from melete.agents.compute import prices, sky, task
from melete.agents.compute.cloud import Cloud
from melete.agents.compute.target import Confirm, Offer
from melete.errors import GPUNotAvailableError, TrainingFailedError
from melete.runs import checkpoints

if TYPE_CHECKING:
    from melete.runs.run import Run

Say = Callable[[str], None]
SET_UP_HOURS = 0.2
ASSUMED_HOURS = 1.0
CHEAPEST = 6


class Stopped(Exception):
    """The run was asked to stop; said by the line of the log that came after."""


def launch(
    cloud: Cloud,
    process: str,
    values: Mapping[str, Any],
    *,
    run: Run | None,
    confirm: Confirm,
    dry_run: bool,
    say: Say,
) -> None:
    """See `Target.launch`."""
    settings = settings_module.load()
    work = task.job(process, values, settings)
    name = machine_name(process, run.id if run is not None else "dry-run")
    if dry_run or run is None:
        for line in preview(cloud, process, values):
            say(line)
        return
    assert run.folder is not None
    folder = run.folder / "cloud"
    built = task.build(cloud, work, name, str(folder / "workdir"))
    rented = sky.find()
    if problem := rented.problem(cloud):
        raise _refused(
            f"SkyPilot has no access to {cloud.name}: {problem}", f"Give it access: {cloud.credentials}."
        )
    offer = priced(cloud, rented.prices(cloud) if cloud.priced else [], hours_of(values))
    say(offer.describe())
    if not confirm(offer):
        raise _refused(
            "The price was declined; nothing was rented.", "Train here with --gpu local or --gpu cpu."
        )
    (folder / "workdir").mkdir(parents=True, exist_ok=True)
    file = task.stage(folder, built, work)

    def follow(line: str) -> None:
        say(line)
        if run.stopping:
            raise Stopped

    with contextlib.suppress(Stopped):
        _work(rented, file, name, run.folder, follow, say, cloud)
    run.result |= _result(run.folder) | {"rented": offer.machine}


def preview(cloud: Cloud, process: str, values: Mapping[str, Any]) -> list[str]:
    """The task and what it would cost, line by line; prices are estimates, as nobody is asked."""
    work = task.job(process, values, settings_module.load())
    built = task.build(cloud, work, machine_name(process, "dry-run"), "RUN/cloud/workdir")
    return [*task.text(built).splitlines(), f"# {priced(cloud, [], hours_of(values)).describe()}"]


def machine_name(process: str, run_id: str) -> str:
    """Name of the machine: letters, digits and `-`, told apart by the run's id."""
    plain = re.sub(r"[^a-z0-9]+", "-", f"{process}-{run_id}".lower()).strip("-")
    return f"melete-{plain[-40:].strip('-')}"


def hours_of(values: Mapping[str, Any]) -> float:
    """Estimated hours: the config's `minutes` where it has any, else a plain hour; and the set-up."""
    minutes = float(values.get("minutes") or 0.0)
    return round((minutes / 60 if minutes else ASSUMED_HOURS) + SET_UP_HOURS, 2)


def priced(cloud: Cloud, catalogue: list[sky.Price], hours: float) -> Offer:
    """The offer, from SkyPilot's catalogue where that could be read, else from our table.

    Raises:
        GPUNotAvailableError: the provider has no such machine.
    """
    if not cloud.priced:
        return Offer(cloud.name, cloud.machine, None, "your own cluster", hours)
    if catalogue:
        fitting = [p.per_hour for p in catalogue if p.gpu == cloud.gpu and p.count == cloud.count]
        if not fitting:
            offered = sorted({(p.per_hour, p.gpu, p.count) for p in catalogue})[:CHEAPEST]
            shown = ", ".join(f"{gpu}:{count:g} ${price:.2f}/h" for price, gpu, count in offered)
            raise GPUNotAvailableError(
                f"{cloud.name} has no machine with {cloud.accelerators}.",
                allowed=f"The cheapest there: {shown}.",
                next_step=f"Name one: --gpu {cloud.name}:GPU:COUNT, with hours about {hours:g}.",
            )
        return Offer(cloud.name, cloud.machine, min(fitting), "SkyPilot's catalogue", hours)
    one = prices.estimate(cloud.name, cloud.gpu)
    price = None if one is None else one * cloud.count
    source = prices.ESTIMATE if one is not None else "not in our table; see the provider's page"
    return Offer(cloud.name, cloud.machine, price, source, hours)


def _work(rented: sky.Sky, file: Path, name: str, folder: Path, follow: Say, say: Say, cloud: Cloud) -> None:
    """Rents, runs, brings back, gives back.

    Raises:
        GPUNotAvailableError: no machine could be had.
        TrainingFailedError: it could not be made ready, or the job failed; says which checkpoint came back.
    """
    say(f"Renting {cloud.machine} as {name}; its log follows.")
    seen: list[str] = []

    def note(line: str) -> None:
        seen.append(line)
        follow(line)

    code = 1
    try:
        code, _ = rented.launch(file, name, note)
    finally:
        # A stop ends here too; what the job had saved by then is worth the seconds.
        started = code == 0 or any(task.STARTED in line for line in seen)
        back = started and rented.copy_back(name, f"{task.REMOTE_HOME}/runs", folder / "cloud" / "runs", say)
        kept = adopt(folder) if back else None
        if back or not started:
            _give_back(rented, name, say)
        else:
            say(f"Nothing could be copied from {name}, so it was not given back.")
    if code == 0 and back:
        return
    if not started and any(sign in line for sign in sky.NO_CAPACITY for line in seen):
        raise _refused(
            f"{cloud.name} has no {cloud.accelerators} free now.", "Try again later, or another GPU."
        )
    saved = f"The checkpoint that was kept: {kept}." if kept else "No checkpoint had been saved."
    if not started:
        raise TrainingFailedError(
            f"The machine could not be made ready: upload or set-up failed (sky launch ended with {code}).",
            allowed="Nothing was trained, and the machine was given back.",
            next_step=f"The log is above; the task is {file}.",
        )
    if not back:
        raise TrainingFailedError(
            f"The job ended, but its checkpoint could not be copied from {name}.",
            allowed=f"The machine is still there and ends itself after {task.IDLE_MINUTES} idle minutes."
            if cloud.autostop
            else "The machine is still there.",
            next_step=f"Copy with: rsync -az {name}:{task.REMOTE_HOME}/runs/ .   then: sky down {name}",
        )
    raise TrainingFailedError(
        f"The job failed on {cloud.machine} (exit code {code}).", allowed=saved, next_step="Its log is above."
    )


def adopt(folder: Path) -> Path | None:
    """Makes the newest checkpoint that came back this run's own, with the curves; returns it."""
    found = sorted((folder / "cloud" / "runs").glob("*/checkpoints/step_*/checkpoint.json"))
    if not found:
        return None
    there = found[-1].parent
    here = folder / "checkpoints" / there.name
    here.parent.mkdir(exist_ok=True)
    if not here.exists():
        temporary = here.with_name(f".tmp-{here.name}")
        shutil.copytree(there, temporary, dirs_exist_ok=True)
        temporary.rename(here)
    checkpoints.read(here)
    for name in ("metrics.jsonl", "samples"):
        source, target = there.parents[1] / name, folder / name
        if source.is_file() and not target.exists():
            shutil.copyfile(source, target)
        elif source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
    return here


def _result(folder: Path) -> dict[str, Any]:
    """The result of the run that came back."""
    for file in sorted((folder / "cloud" / "runs").glob("*/run.json"), reverse=True):
        result = json.loads(file.read_text(encoding="utf-8")).get("result")
        if isinstance(result, dict):
            return result
    return {}


def _give_back(rented: sky.Sky, name: str, say: Say) -> None:
    for left in (1, 0):
        with contextlib.suppress(GPUNotAvailableError):
            if rented.down(name, say):
                return
        if left:
            time.sleep(1)
    say(f"{name} could not be given back; do it with: sky down {name}")


def _refused(found: str, next_step: str) -> GPUNotAvailableError:
    return GPUNotAvailableError(found, allowed=f"Estimates: {prices.overview()}.", next_step=next_step)
