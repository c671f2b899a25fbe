"""Fixtures that every room uses: a home of its own for each test, and the tests' system `trial` among the processes."""

from __future__ import annotations

from pathlib import Path

import pytest

import melete_trial  # noqa: F401  puts `trial` on `melete.__path__`
from melete import settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """Settings of an empty home folder, also seen by child processes through `MELETE_HOME`."""
    for name in ("MELETE_DATABASE", "MELETE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MELETE_HOME", str(tmp_path / "home"))
    return settings.load()
