"""Artifacts: files that were made of an experiment, known to the store by their content.

The store keeps name, place, size and checksum; the file itself stays where it was written and may be moved or deleted.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from sqlalchemy import Connection

from melete.store.database import upsert
from melete.store.models import ArtifactRow, table

ARTIFACTS = table(ArtifactRow)


def keep(connection: Connection, kind: str, path: Path, experiment: str | None) -> str:
    """Notes a file that was written; the same content at the same kind is one artifact, last seen at this path.

    Args:
        connection: an open transaction.
        kind: `report.html`, `bundle` and the like.
        path: the file.
        experiment: id of the experiment that it tells of.

    Returns:
        The artifact's id.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    row = {
        "id": f"{kind}-{sha256[:24]}",
        "session_id": None,
        "experiment": experiment,
        "kind": kind,
        "path": str(path.resolve())[-500:],
        "sha256": sha256,
        "bytes": path.stat().st_size,
        "created_s": time.time(),
    }
    upsert(connection, ARTIFACTS, [row])
    return str(row["id"])
