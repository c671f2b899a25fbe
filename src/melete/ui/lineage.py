"""Lineage as a drawing: nodes in columns from data to deployment, edges as curves; plain numbers for an SVG.

A node stands one column behind the last of those it was made of, and in its column near the middle of them; one that
was made of nothing stands right before the first that was made of it. What leads on to further columns has a lane of
its own in each column between, one for all edges from a node, so that no edge passes behind a node. A drawing has at
most `MOST_NODES`; what is left out is counted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MOST_NODES = 120
MOST_CHARACTERS = 22
WIDTH, HEIGHT = 168, 52
GAP_X, GAP_Y = 44, 18
DATE = re.compile(r"^\d{8}-\d{6}-")
Point = tuple[str, int]
"""A node in its column, or a lane that its edges have in a later one."""


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
    of_column = _columns(nodes, made_of)
    leads_from = _with_lanes(made_of, of_column)
    columns: dict[int, list[Point]] = defaultdict(list)
    for point in dict.fromkeys([*((name, column) for name, column in of_column.items()), *leads_from]):
        columns[point[1]].append(point)
    places: dict[Point, tuple[int, int]] = {}
    height = 0
    for column in sorted(columns):
        below = 0
        rows = {point: _middle(leads_from.get(point, ()), places) for point in columns[column]}
        for point in sorted(rows, key=lambda one: rows[one]):
            tall = HEIGHT if of_column[point[0]] == column else 0
            places[point] = (column * (WIDTH + GAP_X) + 1, below + tall // 2 + 1)
            below += tall + GAP_Y
        height = max(height, below - GAP_Y)
    boxes = [
        Box(nodes[name], _short(nodes[name]["name"]), x, y - HEIGHT // 2, _href(nodes[name]))
        for (name, column), (x, y) in places.items()
        if of_column[name] == column
    ]
    paths = [
        _path(places[source], places[target], lane=of_column[target[0]] != target[1])
        for target, sources in leads_from.items()
        for source in sources
    ]
    return Drawing(
        boxes,
        paths,
        width=max((x for x, _ in places.values()), default=0) + WIDTH + 1,
        height=height + 2,
        left_out=len(graph["nodes"]) - len(nodes),
    )


def _with_lanes(made_of: dict[str, list[str]], of_column: dict[str, int]) -> dict[Point, list[Point]]:
    """What each point is drawn from: an edge over several columns goes from lane to lane of its source."""
    leads_from: dict[Point, dict[Point, None]] = defaultdict(dict)
    for target, sources in made_of.items():
        for source in sources:
            before = (source, of_column[source])
            for column in range(of_column[source] + 1, of_column[target]):
                leads_from[source, column][before] = None
                before = (source, column)
            leads_from[target, of_column[target]][before] = None
    return {point: list(before) for point, before in leads_from.items()}


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


def _middle(sources: Sequence[Point], places: dict[Point, tuple[int, int]]) -> float:
    rows = [places[source][1] for source in sources if source in places]
    return sum(rows) / len(rows) if rows else 0.0


def _path(source: tuple[int, int], target: tuple[int, int], *, lane: bool) -> str:
    """From the right of one point to the left of another; to its right, if that is a lane."""
    (x, y), (to_x, to_y) = (source[0] + WIDTH, source[1]), target
    bend = max(20, (to_x - x) // 2)
    along = f"H{to_x + WIDTH}" if lane else ""
    return f"M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}{along}"


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
