"""Lineage as a drawing: nodes in columns from data to deployment, edges as curves; plain numbers for an SVG.

A node stands one column behind the last of those it was made of, and in its column near the middle of them; one that
was made of nothing stands right before the first that was made of it. A drawing has at most `MOST_NODES`; what is left
out is counted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

MOST_NODES = 120
MOST_CHARACTERS = 22
WIDTH, HEIGHT = 168, 52
GAP_X, GAP_Y = 44, 18
DATE = re.compile(r"^\d{8}-\d{6}-")


@dataclass(frozen=True)
class Box:
    """A node with what is written in it, and its place in pixels."""

    node: dict[str, Any]
    name: str
    x: int
    y: int
    href: str | None


@dataclass(frozen=True)
class Drawing:
    """What the SVG shows.

    Attributes:
        boxes: nodes.
        paths: edges, each the `d` of a path.
        width: in pixels.
        height: in pixels.
        left_out: nodes that are not drawn.
    """

    boxes: list[Box]
    paths: list[str]
    width: int
    height: int
    left_out: int


def drawing(graph: dict[str, Any]) -> Drawing:
    """Places the nodes of a lineage, as the API answers it.

    Args:
        graph: `nodes` with `id`, `kind` and `name`, and `edges` with `source` and `target`.
    """
    nodes = {node["id"]: node for node in graph["nodes"][:MOST_NODES]}
    made_of: dict[str, list[str]] = defaultdict(list)
    for edge in graph["edges"]:
        if edge["source"] in nodes and edge["target"] in nodes:
            made_of[edge["target"]].append(edge["source"])
    columns: dict[int, list[str]] = defaultdict(list)
    for name, column in _columns(nodes, made_of).items():
        columns[column].append(name)
    places: dict[str, tuple[int, int]] = {}
    for column in sorted(columns):
        rows = {name: _middle(made_of[name], places) for name in columns[column]}
        for row, name in enumerate(sorted(rows, key=lambda one: rows[one])):
            places[name] = (column * (WIDTH + GAP_X), row * (HEIGHT + GAP_Y))
    boxes = [
        Box(nodes[name], _short(nodes[name]["name"]), x + 1, y + 1, _href(nodes[name]))
        for name, (x, y) in places.items()
    ]
    paths = [
        _path(places[source], places[target]) for target, sources in made_of.items() for source in sources
    ]
    return Drawing(
        boxes,
        paths,
        width=max((x for x, _ in places.values()), default=0) + WIDTH + 2,
        height=max((y for _, y in places.values()), default=0) + HEIGHT + 2,
        left_out=len(graph["nodes"]) - len(nodes),
    )


def _columns(nodes: dict[str, Any], made_of: dict[str, list[str]]) -> dict[str, int]:
    """The column of each node. Made by going over all edges until nothing moves; a circle, which no real lineage has,
    stops moving at the number of nodes."""
    columns = dict.fromkeys(nodes, 0)
    for _ in range(len(nodes)):
        moved = False
        for name, sources in made_of.items():
            column = max(columns[source] for source in sources) + 1
            if column > columns[name] and column < len(nodes):
                columns[name], moved = column, True
        if not moved:
            break
    first_use: dict[str, int] = {}
    for name, sources in made_of.items():
        for source in sources:
            first_use[source] = min(first_use.get(source, len(nodes)), columns[name])
    beginnings = {name: column - 1 for name, column in first_use.items() if not made_of.get(name)}
    return columns | {name: max(0, column) for name, column in beginnings.items()}


def _middle(sources: list[str], places: dict[str, tuple[int, int]]) -> float:
    rows = [places[source][1] for source in sources if source in places]
    return sum(rows) / len(rows) if rows else 0.0


def _path(source: tuple[int, int], target: tuple[int, int]) -> str:
    x, y = source[0] + WIDTH + 1, source[1] + HEIGHT // 2
    to_x, to_y = target[0] + 1, target[1] + HEIGHT // 2
    bend = max(20, (to_x - x) // 2)
    return f"M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"


def _short(name: str) -> str:
    """A name without the date of its run, as much of its end as a box has room for."""
    name = DATE.sub("", name)
    return name if len(name) <= MOST_CHARACTERS else f"…{name[1 - MOST_CHARACTERS :]}"


def _href(node: dict[str, Any]) -> str | None:
    name = node["name"]
    if node["missing"]:
        return None
    return {
        "run": f"/runs/{name}",
        "checkpoint": f"/runs/{name.rpartition(':')[0]}?tab=checkpoints",
        "dataset": f"/datasets/{name.partition('@')[0]}",
        "deployment": f"/models/deployments/{name.rpartition('_v')[0]}",
    }.get(node["kind"])
