"""The id of a home folder: a database may be shared by many, and a worker only takes jobs whose runs lie in its own.

It is random and lies in the folder, so a home on a shared disk is the same one on every host that mounts it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from melete.runs.folder import storage_error
from melete.settings import Settings

FILE = "home.id"


def home_id(settings: Settings) -> str:
    """The id, made at the first call.

    Raises:
        StorageError: the home folder cannot be written.
    """
    path = settings.home / FILE
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            _make(path)
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise storage_error(path, error) from error


def _make(path: Path) -> None:
    """Writes it whole and links it into place; whoever comes second takes what is there."""
    draft = path.with_name(f".{FILE}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        draft.write_text(secrets.token_hex(8) + "\n", encoding="ascii")
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
