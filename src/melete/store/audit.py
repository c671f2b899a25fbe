"""The audit log: each change that somebody made or tried to make, who it was and how it ended; no bodies, no secrets.

The newest 100,000 entries are kept. An entry that cannot be written stops nobody: what it is about needed the same
database, and has failed with it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from sqlalchemy import Connection, delete, insert

from melete.store.models import AuditRow, table

KEPT = 100_000
PRUNED_EVERY = 500
"""Entries after which old ones are looked for: between these, a few more than `KEPT` may lie there."""
AUDIT = table(AuditRow)
LONGEST = {"who": 80, "address": 60, "method": 10, "path": 500, "action": 60, "target": 200}
"""Characters of a field that are kept."""


@dataclass(frozen=True)
class Entry:
    """One change; see `melete.store.models.AuditRow`."""

    time_s: float
    who: str
    role: str
    via: str
    address: str
    method: str
    path: str
    status: int
    action: str
    target: str = field(default="")


def write(connection: Connection, entry: Entry, kept: int = KEPT) -> None:
    """Adds an entry; now and then the oldest ones go."""
    row = asdict(entry)
    # PostgreSQL has no NUL in a text; paths come from outside.
    row |= {name: str(row[name]).replace("\0", "\ufffd")[:longest] for name, longest in LONGEST.items()}
    added = connection.execute(insert(AUDIT).returning(AUDIT.c.id), row).scalar_one()
    if added % min(PRUNED_EVERY, kept) == 0:
        connection.execute(delete(AUDIT).where(AUDIT.c.id <= added - kept))
