"""The hub: which paths can be watched, and the pollers that watch them for all subscribers together.

    hub.add("/api/v1", api, root="/api/v1")     paths of the API, below its root
    hub.add("/parts", ui)                       pieces of pages

A topic is a GET path with its query. Nothing is polled that nobody watches.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import ASGIApp


@dataclass(frozen=True)
class Place:
    """An application whose paths can be watched."""

    prefix: str
    app: ASGIApp
    root: str


class Hub:
    """Topics of one server."""

    def __init__(self) -> None:
        self._places: list[Place] = []

    def add(self, prefix: str, app: ASGIApp, *, root: str = "") -> None:
        """Lets the paths below a prefix be watched.

        Args:
            prefix: such as `/parts`.
            app: what answers them.
            root: where the application is mounted.
        """
        self._places.append(Place(prefix, app, root))
