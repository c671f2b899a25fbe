"""Static files under one hash of them all, so that a browser may keep them for ever and modules can import each other.

The hash is taken when the first page is rendered; a server that is started again sees what has changed.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

STATIC = Path(__file__).parent / "static"


@cache
def version() -> str:
    """A hash of every static file."""
    digest = hashlib.sha256()
    for file in sorted(STATIC.rglob("*")):
        if file.is_file():
            digest.update(str(file.relative_to(STATIC)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def url(name: str) -> str:
    """Where a static file is, such as `melete.css`."""
    return f"/static/{version()}/{name}"


class Assets(StaticFiles):
    """The files below their hash; under an old one, what is there now, to be asked for again."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """See Starlette."""
        asked, _, name = path.partition("/")
        if not name:
            raise HTTPException(404)
        response = await super().get_response(name, scope)
        fresh = asked == version()
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if fresh else "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def application(**options: Any) -> ASGIApp:
    """What answers below `/static`."""
    return Assets(directory=STATIC, **options)
