"""Fixtures that every room uses: a home of its own for each test, and the tests' system `trial` among the processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import melete_trial  # noqa: F401  puts `trial` on `melete.__path__`
from melete import settings
from postgres_at_hand import postgres, store  # noqa: F401  fixtures for every room
from trial_runs import TRIAL

with suppress(ModuleNotFoundError):  # the environment of a framework has none
    import hypothesis

    # The gate tries the same examples each time, however slow the machine; others: pytest --hypothesis-profile=default
    hypothesis.settings.register_profile(
        "gate", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("gate")


def pytest_sessionfinish() -> None:
    """Ends the gateway that the tests of this worker have shared, if any has asked for it."""
    shared = sys.modules.get("gateway_at_hand")
    if shared is not None:
        shared.end()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """Settings of an empty home folder, also seen by child processes through `MELETE_HOME`."""
    for name in ("MELETE_DATABASE", "MELETE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MELETE_HOME", str(tmp_path / "home"))
    return settings.load()


@pytest.fixture
def melete(home: settings.Settings) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `melete ARGS` in a process of its own, on an empty home, with the system `trial`."""

    def run(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(TRIAL), *args],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environ},
        )

    return run


@pytest.fixture
def call(home: settings.Settings, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `melete ARGS` in this process, which is quicker; returns exit code, stdout and stderr."""

    def run(*args: str) -> tuple[int, str, str]:
        from melete.cli._root import run as command_line

        code = command_line(list(args))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of a given size in bytes; skips where this user may not mount one."""
    mounted: list[Path] = []

    def make(size: int) -> Path:
        place = tmp_path / "disk"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if (
            shutil.which("mount") is None
            or subprocess.run(mount, capture_output=True, check=False).returncode
        ):
            pytest.skip("this user may not mount a file system")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)
