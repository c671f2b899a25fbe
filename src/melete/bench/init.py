"""Writes a bench folder that works: two scripted models, two questions and an experiment, to change into one's own.

What is written are copies of the examples that ship; a file that is there already stays as it is.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from melete.bench.folder import Bench
from melete.bench.workspace import writing
from melete.settings import Settings

EXPERIMENT = "first_steps"


def write(settings: Settings, folder: Path) -> tuple[list[Path], list[Path]]:
    """Copies the example experiment and all that it refers to.

    Returns:
        The files that were written, and those that were there already.

    Raises:
        StorageError: the folder cannot be written.
    """
    # An empty folder of its own, so that the files that ship are found, not the user's.
    shipped = Bench(dataclasses.replace(settings, bench_folder=folder / ".none"))
    written, kept = [], []
    for path, target in sources(shipped):
        copy = folder / target
        if copy.exists():
            kept.append(copy)
            continue
        with writing(copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        written.append(copy)
    return written, kept


def sources(bench: Bench) -> list[tuple[Path, str]]:
    """Each file of the example, and where it goes."""
    experiment = bench.experiments.read(EXPERIMENT)
    listed = [(experiment.path, "experiments")]
    variants = [bench.variants.read(name) for name in experiment.record.variants]
    listed += [(variant.path, "variants") for variant in variants]
    listed += [(bench.task_cards.read(name).path, "task_cards") for name in experiment.record.task_cards]
    for name in sorted({variant.record.provider for variant in variants}):
        listed.append((bench.providers.read(name).path, "providers"))
    for name in sorted({variant.record.harness_profile for variant in variants}):
        profile = bench.harness_profiles.read(name)
        listed.append((profile.path, "harness_profiles"))
        beside = [file.source for file in profile.record.files.values() if file.source is not None]
        listed += [(profile.path.parent / source, "harness_profiles") for source in beside]
    return [(path, f"{folder}/{path.name}") for path, folder in listed]
