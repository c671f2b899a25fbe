"""Child processes of the tests' own system `trial`, for what needs a run that is alive."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from melete import settings
from melete.runs import folder
from melete.store import database

TRIAL = Path(__file__).with_name("melete_trial.py")


@contextmanager
def started_run(home: settings.Settings, *args: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Starts `melete trial count ARGS` and yields it, with its run folder, once its first word is out."""
    with database.connect(home.database):  # made here, where Alembic is loaded already
        pass
    child = subprocess.Popen(
        [sys.executable, str(TRIAL), "trial", "count", "--words", "ready", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MELETE_HOME": str(home.home)},
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child, home.runs / folder.ids(home.runs)[-1]
    finally:
        child.kill()
        child.communicate()
