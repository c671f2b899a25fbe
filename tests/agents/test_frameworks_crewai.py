"""CrewAI practises and is deployed in its own environment, where its pins do not meet ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".envs" / "crewai" / "bin" / "python"
TESTS = ("test_frameworks_adapters.py", "test_frameworks_trained.py")


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="make it with: python tools/envs.py crewai")
def test_crewai_passes_the_tests_of_every_adapter_in_its_own_environment() -> None:
    files = [str(ROOT / "tests" / "agents" / name) for name in TESTS]
    done = subprocess.run(
        [str(PYTHON), "-m", "pytest", "-p", "no:cacheprovider", "-k", "crewai", *files],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
