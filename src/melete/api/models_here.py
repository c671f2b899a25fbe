"""Trained models of this home: runs that saved checkpoints, found newest first, with what uses them."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from melete.api import columns, here
from melete.api.clean import clean
from melete.api.model_records import DeployedAs, Model, ModelCheckpoint, ModelDetail
from melete.api.records import Lineage
from melete.api.run_parts.lineage import Graph, made_of
from melete.api.serving import Serving
from melete.errors import CheckpointError, DeploymentError, MeleteError, UnknownNameError
from melete.records import CheckpointRecord
from melete.runs import checkpoints, folder
from melete.settings import Settings

STATE = "state."
"""Files of a checkpoint that only a resume needs begin so."""
MOST_CHECKPOINTS = 200
MOST_FIGURES = 20
MOST_POINTS = 5_000
LOWER = ("val_bpb", "val_loss")
HIGHER = ("val_reward", "val_accuracy", "task_success", "reliability", "reward")
"""Figures that say which checkpoint is the best; the first that is known decides."""


def digest(file: Path) -> str:
    """SHA-256 of a small file, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def deployments(settings: Settings) -> dict[str, list[DeployedAs]]:
    """Run id to the deployed versions that were made of it."""
    from melete.serve import deployment

    found: dict[str, list[DeployedAs]] = {}
    for name in deployment.names(settings):
        try:
            used = deployment.active(settings, name)
        except DeploymentError:
            used = ""
        for version in deployment.versions(settings, name):
            values = here.json_of(deployment.root(settings) / name / f"v{version}" / "deployment.json")
            source = str(values.get("source", "")) if isinstance(values, dict) else ""
            made = DeployedAs(
                id=f"{name}_v{version}", name=name, version=version, checkpoint=source, active=version == used
            )
            found.setdefault(source.rpartition(":")[0] or source, []).append(made)
    return found


def model(
    settings: Settings, run_id: str, deployed: dict[str, list[DeployedAs]], serving: Serving
) -> Model | None:
    """A run as a model; None if it saved no checkpoint that can be read, or is gone."""
    told = _told(settings, run_id, deployed, serving)
    return Model.model_validate(told) if told is not None else None


def detail(settings: Settings, run_id: str, serving: Serving) -> ModelDetail:
    """All about one model.

    Raises:
        UnknownNameError: the run saved no checkpoint.
    """
    told = _told(settings, run_id, deployments(settings), serving)
    if told is None:
        raise UnknownNameError("model", run_id, [], next_step="That run has saved no checkpoint yet.")
    path = settings.runs / run_id
    figures = _figures(path)
    saved = [_checkpoint(one, record, figures) for one, record in islice(_saved(path), MOST_CHECKPOINTS)]
    by, best = _best(saved)
    graph = Graph(settings)
    graph.back(run_id)
    graph.forward(run_id)
    lineage = Lineage(run=run_id, nodes=list(graph.nodes.values()), edges=list(graph.edges.values()))
    return ModelDetail.model_validate(
        {**told, "all_checkpoints": saved, "best": best, "best_by": by, "lineage": lineage}
    )


def _told(
    settings: Settings, run_id: str, deployed: dict[str, list[DeployedAs]], serving: Serving
) -> dict[str, Any] | None:
    path = settings.runs / run_id
    newest = next(_saved(path), None)
    if newest is None:
        return None
    try:
        record = folder.read(path)
    except MeleteError:
        return None
    served = serving.served_as()
    told: dict[str, Any] = clean(
        {
            "id": run_id,
            "name": record.name or record.step_name,
            "process": record.process,
            "state": record.state,
            "kind": newest[1].kind,
            "created_s": record.created_s,
            "checkpoints": sum(1 for _ in (path / "checkpoints").glob("step_*")),
            "newest": _checkpoint(*newest, {}).model_dump(),
            "made_of": made_of(path, record),
            "deployments": [one.model_dump() for one in deployed.get(run_id, [])],
            "served_as": sorted(
                name for (run, _), names in served.items() if run == run_id for name in names
            ),
        }
    )
    return told


def _saved(path: Path) -> Iterator[tuple[Path, CheckpointRecord]]:
    """The checkpoints of a run that can be read, newest first."""
    for one in sorted((path / "checkpoints").glob("step_*"), reverse=True):
        try:
            yield one, checkpoints.read(one)
        except (CheckpointError, TypeError, KeyError, AttributeError):
            continue


def _checkpoint(
    path: Path, record: CheckpointRecord, figures: dict[str, tuple[list[float], list[float]]]
) -> ModelCheckpoint:
    served = sum(size for name, (size, _) in record.files.items() if not name.startswith(STATE))
    told: dict[str, Any] = {
        "id": f"{path.parent.parent.name}:{record.step}",
        "step": record.step,
        "saved_s": (path / "checkpoint.json").stat().st_mtime,
        "bytes": sum(size for size, _ in record.files.values()),
        "serve_bytes": served,
        "metrics": record.metrics,
        "figures": _at(figures, record.step),
    }
    return ModelCheckpoint.model_validate(clean(told))


def _figures(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of the figures by which checkpoints are judged."""
    read = columns.read(path)
    known = [key for key in read.head.figures if key.startswith("val_") or key in HIGHER]
    found = {}
    for key in known[:MOST_FIGURES]:
        steps, _, values = read.series(key, MOST_POINTS)
        found[key] = (steps.tolist(), values.tolist())
    return found


def _at(figures: dict[str, tuple[list[float], list[float]]], step: int) -> dict[str, float]:
    """The last value of each figure at a step or before it."""
    found = {}
    for key, (steps, values) in figures.items():
        at = bisect.bisect_right(steps, step) - 1
        if at >= 0:
            found[key] = values[at]
    return found


def _best(saved: list[ModelCheckpoint]) -> tuple[str | None, ModelCheckpoint | None]:
    """The best checkpoint and the figure that says so."""
    for key in (*LOWER, *HIGHER):
        judged = [one for one in saved if key in one.figures]
        if judged:
            sign = 1 if key in LOWER else -1
            return key, min(judged, key=lambda one: sign * one.figures[key])
    return None, None
