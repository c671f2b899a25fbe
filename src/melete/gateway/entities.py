"""Config entities in the store: a document is kept under `name@digest`, so that a session names the exact text of it.

The digest is taken of the canonical document (sorted keys, no spaces): a comment or the order of keys changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

from sqlalchemy import Connection, select

from melete.errors import UnknownNameError
from melete.store.database import insert_new
from melete.store.models import ENTITIES, table

DIGITS = 12
"""Hexadecimal digits of the digest that an id carries."""


def canonical(document: dict[str, Any]) -> str:
    """The document as JSON text that is the same for equal documents.

    Raises:
        ValueError: a value that JSON does not have, such as NaN.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(document: dict[str, Any]) -> str:
    """sha256 of the canonical document, in hexadecimal."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def id_of(name: str, document: dict[str, Any]) -> str:
    """The id under which a document is kept."""
    return f"{name}@{digest(document)[:DIGITS]}"


def record(connection: Connection, kind: str, name: str, document: dict[str, Any]) -> str:
    """Keeps a document, once; returns its id `name@digest`.

    Args:
        connection: an open transaction.
        kind: provider, harness_profile, variant, experiment or task_card.
        name: name of the file.
        document: what it says, as JSON values, with secrets by reference only.
    """
    row = {
        "id": id_of(name, document),
        "name": name,
        "digest": digest(document),
        "document": json.loads(canonical(document)),
        "created_s": time.time(),
    }
    insert_new(connection, table(ENTITIES[kind]), [row])
    return str(row["id"])


def document(connection: Connection, kind: str, id: str) -> dict[str, Any]:
    """What an entity said.

    Raises:
        UnknownNameError: no such entity.
    """
    row = ENTITIES[kind]
    found: dict[str, Any] | None = connection.scalar(select(row.document).where(row.id == id))
    if found is None:
        known = connection.scalars(select(row.id).order_by(row.created_s.desc()).limit(100))
        raise UnknownNameError(kind.replace("_", " "), id, known)
    return found


def newest(connection: Connection, kind: str, name: str) -> str | None:
    """Id of the newest entity of a name, or None."""
    row = ENTITIES[kind]
    query = select(row.id).where(row.name == name).order_by(row.created_s.desc(), row.id).limit(1)
    return connection.scalar(query)


def name_of(id: str) -> str:
    """Name of the entity that an id belongs to."""
    return id.rpartition("@")[0] or id
