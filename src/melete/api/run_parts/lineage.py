"""Lineage of a run: the data and checkpoints it was made of, and the checkpoints and deployments made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter

from melete.api import here
from melete.api.clean import clean
from melete.api.here import RunId
from melete.api.records import Lineage, LineageEdge, LineageNode
from melete.api.store import Store
from melete.errors import MeleteError
from melete.records import RunRecord
from melete.runs import checkpoints, folder, provenance
from melete.runs.process import Input, config_class
from melete.settings import Settings

MOST_RUNS = 100
"""Runs back to the data."""


def routes(store: Store) -> APIRouter:
    """One answer."""
    router = APIRouter()

    @router.get("")
    def get_run_lineage(run_id: RunId) -> Lineage:
        """From data to deployment: back through all that the run was made of, forward to what was deployed of it."""
        here.opened(store, run_id)
        graph = Graph(store.settings)
        graph.back(run_id)
        graph.forward(run_id)
        return Lineage(run=run_id, nodes=list(graph.nodes.values()), edges=list(graph.edges.values()))

    return router


class Graph:
    """Nodes and edges as they are found.

    Args:
        settings: where the runs are.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.nodes: dict[str, LineageNode] = {}
        self.edges: dict[tuple[str, str], LineageEdge] = {}

    def back(self, run_id: str) -> None:
        """All that a run was made of, to the first runs and the data."""
        waiting, seen = [run_id], set[str]()
        while waiting and len(seen) < MOST_RUNS:
            one = waiting.pop(0)
            if one in seen:
                continue
            seen.add(one)
            path = self.settings.runs / one
            record = _record(path)
            made = self._node("run", one, record.process if record else "", missing=record is None)
            if record is None:
                continue
            for kind, _, name in (source.partition(":") for source in made_of(path, record)):
                if kind == "checkpoint":
                    run, _, step = name.rpartition(":")
                    self._edge(self._saved(run, int(step)), made)
                    waiting.append(run)
                else:
                    self._edge(self._node(kind, name, ""), made)

    def forward(self, run_id: str) -> None:
        """The checkpoints of a run, and the deployments that were made of them."""
        steps = [
            int(path.name.removeprefix("step_"))
            for path in sorted((self.settings.runs / run_id / "checkpoints").glob("step_*"))
            if path.name.removeprefix("step_").isdecimal()
        ]
        if steps:
            self._saved(run_id, steps[-1])
        for deployment, source in _deployments(self.settings):
            run, colon, step = source.rpartition(":")
            if (run if colon else source) != run_id or not steps:
                continue
            saved = self._saved(run_id, int(step) if colon and step.isdecimal() else steps[-1])
            self._edge(saved, self._node("deployment", deployment, ""))

    def _saved(self, run: str, step: int) -> str:
        """A checkpoint with the run that it is of."""
        path = self.settings.runs / run
        record = _record(path)
        try:
            kind, missing = checkpoints.read(path / "checkpoints" / f"step_{step:08d}").kind, False
        except MeleteError:
            kind, missing = "", True
        made = self._node("checkpoint", f"{run}:{step}", kind, missing)
        self._edge(self._node("run", run, record.process if record else "", missing=record is None), made)
        return made

    def _node(self, kind: str, name: str, label: str, missing: bool = False) -> str:
        node_id = f"{kind}:{name}"
        if node_id not in self.nodes:
            told = {"id": node_id, "kind": kind, "name": name, "label": label, "missing": missing}
            self.nodes[node_id] = LineageNode.model_validate(clean(told))
        return node_id

    def _edge(self, source: str, target: str) -> None:
        self.edges[source, target] = LineageEdge(source=self.nodes[source].id, target=self.nodes[target].id)


def made_of(path: Path, record: RunRecord) -> list[str]:
    """What went into a run, each as `kind:name`: datasets, checkpoints of runs, other models."""
    found = [f"dataset:{name}" for name in (provenance.read(path) or {}).get("datasets", {})]
    for ref in _inputs(path, record):
        run, colon, step = ref.rpartition(":")
        ours = colon and step.isdecimal() and "/" not in run
        found.append(f"{'checkpoint' if ours else 'model'}:{ref}")
    return found


def _record(path: Path) -> RunRecord | None:
    """A run's record; None for one that is gone or cannot be read."""
    if not (path / "run.json").is_file():
        return None
    try:
        return folder.read_stored(path)
    except MeleteError:
        return None


def _inputs(path: Path, record: RunRecord) -> list[str]:
    """References to checkpoints and models in a run's config; its config holds them as `run:step`."""
    config = here.yaml_of(path / "config.yaml")
    try:
        fields = config_class(record.process).model_fields
    except MeleteError:
        return []
    values: Any = config if isinstance(config, dict) else {}
    return [
        str(values[key])
        for key, field in fields.items()
        if values.get(key)
        and any(isinstance(mark, Input) and mark.what != "dataset" for mark in field.metadata)
    ]


def _deployments(settings: Settings) -> list[tuple[str, str]]:
    """Each deployed version, `name_vversion`, with the reference that it was made of."""
    found = []
    for path in sorted((settings.home / "deployments").glob("*/v*/deployment.json")):
        values = here.json_of(path)
        if isinstance(values, dict) and isinstance(values.get("source"), str):
            found.append((f"{path.parents[1].name}_{path.parent.name}", values["source"]))
    return found
