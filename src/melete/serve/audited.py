"""What of a request goes into the audit log: whether it is a change, and what that is called, such as `job.stop`.

A path says it: its first word is the noun, its third the verb, and between them is the id. `POST /api/v1/jobs/ID/stop`
and the page's `POST /jobs/ID/stop` are both `job.stop` of ID, and a resource that is added needs nothing here. Ids of
models may hold slashes: below `/v1` the verb is the last word.
"""

from __future__ import annotations

import re

from melete.access import SAFE

ROOMS = re.compile(r"^/(api/v1|v1|parts|settings|models(?=/deployments/))(?=/)")
NO_CHANGE = re.compile(
    r"/v1/(chat/completions|completions|embeddings|responses|messages|tools/.*)|/v1/agents/[^/]+/act|"
    r".*/(check|draft|preview)|/api/v1/processes/[^/]+/job"
)
"""Unsafe requests that change nothing: answers of models, and looks at what would be."""
PLAIN = {"POST": "create", "DELETE": "delete", "PUT": "change", "PATCH": "change"}


def is_change(method: str, path: str) -> bool:
    """Whether a request is to be written down."""
    return method not in SAFE and not NO_CHANGE.fullmatch(path)


def named(method: str, path: str) -> tuple[str, str]:
    """The action of a request and the id of what it is about; the id is empty where the path has none."""
    parts = [part for part in ROOMS.sub("", path).split("/") if part]
    if not parts:
        return PLAIN.get(method, method.lower()), ""
    noun, plain = parts[0].removesuffix("s"), PLAIN.get(method, method.lower())
    if method == "DELETE" or len(parts) == 1 or (len(parts) == 2 and method != "POST"):
        return f"{noun}.{plain}", "/".join(parts[1:])
    at = len(parts) - 1 if path.startswith("/v1/") else min(2, len(parts) - 1)
    return f"{noun}.{parts[at]}", "/".join((*parts[1:at], *parts[at + 1 :]))
