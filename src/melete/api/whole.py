"""What one server carries besides models: the API at `/api/v1`, and the pages at every path that is left.

`melete serve` mounts it beside the OpenAI-compatible routes, `melete serve --no-model` alone; both behind one gate. The
pages come last, so that no other path is hidden by them, and ask the API in process.
"""

from __future__ import annotations

from starlette.types import ASGIApp

from melete import find
from melete.api.app import PREFIX, create_app
from melete.api.serving import Serving
from melete.settings import Settings

PAGES = ""
"""Where the pages are mounted."""


def mounts(settings: Settings, serving: Serving | None = None) -> dict[str, ASGIApp]:
    """Path to the application that answers below it, in the order in which they are to be mounted.

    Args:
        settings: where the database and the runs are.
        serving: the models and agents of the server that carries them.
    """
    api = create_app(settings, serving)
    found: dict[str, ASGIApp] = {PREFIX: api}
    if "app" in find.names("melete.ui"):
        found[PAGES] = find.load("melete.ui", "app", "part of the web UI").create_app(settings, api)
        api.state.hub.add("/parts", found[PAGES])
    return found
