"""SkyPilot as a child process: its pins fight ours, so it is never imported, and is called with lists of arguments.

It is looked for in `.envs/skypilot` (made by `python tools/envs.py skypilot`) and on the PATH.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import melete
from melete.agents.compute import prices
from melete.agents.compute.cloud import Cloud
from melete.errors import GPUNotAvailableError

CATALOGUE = """
import json, sys
from sky import catalog
found = catalog.list_accelerators(gpus_only=True, clouds=[sys.argv[1]], all_regions=False)
rows = [(i.accelerator_name, i.accelerator_count, i.price) for infos in found.values() for i in infos]
print("PRICES" + json.dumps([row for row in rows if row[2] == row[2]]))
"""
"""Run by SkyPilot's own Python: GPU, count and US dollars an hour of every machine of a provider."""
ANSWER_S = 120
STYLE = re.compile(r"\x1b\[[0-9;]*m")
NO_CAPACITY = ("ResourcesUnavailableError", "Failed to provision", "No launchable resource")


@dataclass(frozen=True)
class Price:
    """One machine of a provider, in US dollars an hour."""

    gpu: str
    count: float
    per_hour: float


@dataclass(frozen=True)
class Sky:
    """The `sky` command."""

    path: Path

    def prices(self, cloud: Cloud) -> list[Price]:
        """What a provider offers by SkyPilot's catalogue; empty where it cannot be read, such as without a network."""
        python = self.path.resolve().parent / "python"
        done = self._answer([str(python), "-c", CATALOGUE, cloud.infra])
        for line in done.stdout.splitlines():
            if line.startswith("PRICES"):
                return [Price(*row) for row in json.loads(line.removeprefix("PRICES"))]
        return []

    def problem(self, cloud: Cloud) -> str:
        """Why SkyPilot cannot use a provider; empty if it can."""
        done = self._answer([str(self.path), "check", cloud.infra])
        lines = [
            line.strip() for line in STYLE.sub("", done.stdout + done.stderr).splitlines() if line.strip()
        ]
        if done.returncode == 0 and any(line.partition(": ")[2].startswith("enabled") for line in lines):
            return ""
        start = next((i for i, line in enumerate(lines) if "disabled" in line or "rror" in line), 0)
        return " ".join(lines[start : start + 2]) or f"sky check ended with {done.returncode}"

    def launch(self, file: Path, machine: str, say: Callable[[str], None]) -> tuple[int, str]:
        """Rents a machine, runs the task, streams its log; exit code and the log's end."""
        return self._stream([str(self.path), "launch", "--yes", "--cluster", machine, str(file)], say)

    def copy_back(self, machine: str, there: str, here: Path, say: Callable[[str], None]) -> bool:
        """Copies a folder of the machine to a folder here; SkyPilot has told SSH how to reach it by name."""
        here.mkdir(parents=True, exist_ok=True)
        command = ["rsync", "--archive", "--compress", f"{machine}:{there.rstrip('/')}/", f"{here}/"]
        try:
            return self._stream(command, say)[0] == 0
        except GPUNotAvailableError as error:
            say(error.found)
            return False

    def down(self, machine: str, say: Callable[[str], None]) -> bool:
        """Gives the machine back."""
        return self._stream([str(self.path), "down", "--yes", machine], say)[0] == 0

    def _answer(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command, capture_output=True, text=True, timeout=ANSWER_S, check=False, env=_environ()
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(command, 1, "", f"{type(error).__name__}: {error}")

    def _stream(self, command: Sequence[str], say: Callable[[str], None]) -> tuple[int, str]:
        try:
            child = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                env=_environ(), stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            raise GPUNotAvailableError(f"{command[0]} cannot be started: {error.strerror}.") from error
        kept: list[str] = []
        with child:
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    kept = [*kept[-200:], line]
                    say(line.rstrip("\n"))
            except BaseException:
                child.terminate()
                raise
        return child.returncode, "".join(kept)


def find(roots: Sequence[Path] | None = None, path: str | None = None) -> Sky:
    """SkyPilot here.

    Args:
        roots: folders that may hold `.envs`; the working folder and this tree by default.
        path: the PATH by default.

    Raises:
        GPUNotAvailableError: it is not installed.
    """
    roots = (Path.cwd(), Path(melete.__file__).parents[2]) if roots is None else roots
    beside = [root / ".envs" / "skypilot" / "bin" / "sky" for root in roots]
    on_path = shutil.which("sky", path=path)
    for found in (*([Path(on_path)] if on_path else []), *beside):
        if found.is_file():
            return Sky(found)
    raise GPUNotAvailableError(
        "Renting a GPU needs SkyPilot, which is not installed.",
        allowed=f"Estimates: {prices.overview()}.",
        next_step="Install it in an environment of its own: python tools/envs.py skypilot",
    )


def _environ() -> dict[str, str]:
    """The environment without our own variables: Melete's token has no business there."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MELETE_")}
