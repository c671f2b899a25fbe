"""A topic: a GET path of this server with its query, found among the applications whose paths can be watched.

    /api/v1/status      /api/v1/runs?state=running      /parts/jobs/table?limit=20

Written as in a URL. Its answer has to be JSON or HTML: what downloads a file, streams, or is a WebSocket is no topic.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

from starlette.types import ASGIApp

from melete.access import Who
from melete.api.ask import Answer, ask
from melete.errors import ConfigError, MeleteError, UnknownNameError

LONGEST = 2_000
MOST_BYTES = 4 << 20
MEDIA = ("application/json", "text/html")


@dataclass(frozen=True)
class Place:
    """An application whose paths can be watched.

    Attributes:
        prefix: such as `/parts`.
        app: what answers.
        root: where the application is mounted.
    """

    prefix: str
    app: ASGIApp
    root: str


@dataclass(frozen=True)
class Topic:
    """One path that is watched, and for whom.

    Attributes:
        text: as the client wrote it, which is its name in every message.
        path: without percent-encoding and query.
        query: as in a URL.
        place: what answers it.
        who: whose rights it is read with.
    """

    text: str
    path: str
    query: str
    place: Place
    who: Who

    @cached_property
    def asked(self) -> dict[str, str]:
        """The query's values by name, the last of each."""
        return dict(parse_qsl(self.query))

    async def answer(self, **changed: Any) -> Answer:
        """What a GET of it answers now.

        Args:
            changed: values of the query that are others than the topic's.

        Raises:
            ServerError: it answers something that cannot be watched.
        """
        below = self.path.removeprefix(self.place.root)
        query: str | Mapping[str, Any] = {**self.asked, **changed} if changed else self.query
        return await ask(
            self.place.app, "GET", below, query=query, who=self.who, root=self.place.root,
            media=MEDIA, most_bytes=MOST_BYTES,
        )  # fmt: skip


def parse(text: Any, places: Iterable[Place], who: Who) -> Topic:
    """The topic of a name.

    Raises:
        ConfigError: it is no path, or too long.
        UnknownNameError: nothing here has paths like it.
    """
    if not isinstance(text, str) or not text.startswith("/") or len(text) > LONGEST or not text.isprintable():
        raise ConfigError(
            f"The topic {str(text)[:80]!r} is no path.",
            allowed=f"A GET path of this server, such as /api/v1/status, {LONGEST} characters at most.",
        )
    raw, _, query = text.partition("?")
    path = unquote(raw)
    for place in places:
        if path == place.prefix or path.startswith(place.prefix + "/"):
            return Topic(text, path, query, place, who)
    raise UnknownNameError("topic", text[:200], [f"{place.prefix}/" for place in places])


def frame(topic: str, payload: str) -> str:
    """A message to clients: `[topic, payload]`; `payload` is JSON already."""
    return f"[{json.dumps(topic)},{payload}]"


def refused(answer: Answer, topic: Topic) -> str:
    """An answer that is no success as a payload: `{"error": {…, "status": 404}}`; a piece of a page has `html` too."""
    told: dict[str, Any]
    try:
        told = dict(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        told = {"message": f"{topic.path} answers {answer.status}.", "type": "server_error", "code": None}
    if answer.status == 404 and told.get("code") is None and (close := _close(topic)):
        told["message"] = f"{told['message']} Did you mean {close!r}?"
    if answer.headers.get("content-type", "").startswith("text/html"):
        told["html"] = answer.body.decode("utf-8", "replace")
    return json.dumps({"error": {**told, "status": answer.status}})


def problem(error: MeleteError, status: int = 400, code: str | None = "not_watchable") -> str:
    """An error of ours as a payload."""
    told = {"message": str(error), "type": "invalid_request_error", "param": None, "code": code}
    return json.dumps({"error": {**told, "status": status}})


def _close(topic: Topic) -> str | None:
    """A path of the same application that is written almost like it."""
    document: Any = getattr(topic.place.app, "openapi", dict)()
    paths = [topic.place.root + path for path in document.get("paths", ())]
    found = difflib.get_close_matches(topic.path, paths, n=1, cutoff=0.7)
    return found[0] if found else None
