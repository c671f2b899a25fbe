"""Static files under one hash of them all, so that a browser may keep them for ever and modules can import each other.

The files are held in memory, compressed once. Whether one has changed is looked at once a second, by names, sizes and
times, so that who edits a file sees it after a reload; an installed package never changes.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import posixpath
import re
import time
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

STATIC = Path(__file__).parent / "static"
LOOK_S = 1.0
WORTH_BYTES = 600
"""Smaller files are not compressed."""
IMPORT = re.compile(r"""^\s*(?:import|export)\b[^"';(]*["'](\.{1,2}/[^"']+)["']""", re.M)
"""What a module asks for before it runs; `import("…")` comes later."""
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2"}


@dataclass(frozen=True)
class Asset:
    """One file, as it is sent.

    Attributes:
        media_type: of HTTP.
        body: as it is.
        packed: gzip of it, None where that is not worth it.
    """

    media_type: str
    body: bytes
    packed: bytes | None


@dataclass
class Tree:
    """All files of a folder.

    Args:
        folder: what is below it is public.
        look_s: how long what was seen is believed.
    """

    folder: Path
    look_s: float = LOOK_S
    version: str = ""
    _seen: tuple[tuple[str, int, int], ...] = ()
    _looked_s: float = float("-inf")

    def __post_init__(self) -> None:
        self._assets: dict[str, Asset] = {}
        self._imports: dict[str, list[str]] = {}
        self.current()

    def current(self) -> str:
        """The hash of all files as they are now."""
        now_s = time.monotonic()
        if now_s - self._looked_s < self.look_s:
            return self.version
        files = sorted(file for file in self.folder.rglob("*") if file.is_file())
        names = [file.relative_to(self.folder).as_posix() for file in files]
        stats = [file.stat() for file in files]
        seen = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in zip(names, stats, strict=True))
        if seen != self._seen:
            digest = hashlib.sha256()
            for name, file in zip(names, files, strict=True):
                digest.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
            self._seen, self.version = seen, digest.hexdigest()[:12]
            self._assets, self._imports = {}, {}
        self._looked_s = now_s
        return self.version

    def imports(self, name: str) -> list[str]:
        """The modules that a script imports at once, and those that they import; so that none waits for another."""
        self.current()
        if name not in self._imports:
            found: list[str] = []
            wanted = [name]
            while wanted:
                one = wanted.pop()
                asset = self.asset(one)
                text = (
                    asset.body.decode("utf-8", "replace")
                    if asset is not None and "vendor/" not in one
                    else ""
                )
                for path in IMPORT.findall(text):
                    module = posixpath.normpath(posixpath.join(posixpath.dirname(one), path))
                    if module != name and module not in found:
                        found.append(module)
                        wanted.append(module)
            self._imports[name] = found
        return self._imports[name]

    def asset(self, name: str) -> Asset | None:
        """A file by its path below the folder; None where there is none."""
        self.current()
        if name not in {one[0] for one in self._seen}:
            return None
        if name not in self._assets:
            body = (self.folder / name).read_bytes()
            suffix = Path(name).suffix
            packed = gzip.compress(body, 9, mtime=0) if len(body) >= WORTH_BYTES else None
            self._assets[name] = Asset(
                TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream",
                body,
                packed if packed is not None and len(packed) < len(body) else None,
            )
        return self._assets[name]


TREE = Tree(STATIC)


def version() -> str:
    """A hash of every static file."""
    return TREE.current()


def url(name: str) -> str:
    """Where a static file is, such as `melete.css`."""
    return f"/static/{version()}/{name}"


def preloads(name: str) -> list[str]:
    """Where the modules are that a script asks for before it runs."""
    return [url(one) for one in TREE.imports(name)]


class Assets:
    """The files below their hash; under an old one, what is there now, to be asked for again."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        request = Request(scope, receive)
        if request.method not in ("GET", "HEAD"):
            raise HTTPException(405)
        path = scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/")
        asked, _, name = path.partition("/")
        asset = TREE.asset(name)
        if asset is None:
            raise HTTPException(404)
        await _response(request, asset, fresh=asked == version())(scope, receive, send)


def _response(request: Request, asset: Asset, *, fresh: bool) -> Response:
    etag = f'"{version()}"'
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if fresh else "no-cache",
        "ETag": etag,
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    body = asset.body
    if asset.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        body = asset.packed
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type=asset.media_type)


def application() -> ASGIApp:
    """What answers below `/static`."""
    return Assets()
