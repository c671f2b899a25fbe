"""Where and with what a session ran: repository, commit, dirty flag, host, versions.

A version that a harness prints is text from outside: its command runs with a time limit, and only one short line of
printable characters is kept. Nothing here reads the environment's values or a file's content.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from melete.gateway import state
from melete.settings import Settings

GIT_TIMEOUT_S = 10.0
VERSION_TIMEOUT_S = 15.0
VERSION_LENGTH = 80
_versions: dict[tuple[str, ...], str | None] = {}
"""What version commands answered, for the life of this process."""


def of_machine(settings: Settings) -> dict[str, Any]:
    """Host, cores, load, and versions of Melete, Python and the LiteLLM of this home's gateway."""
    gateway = state.alive(settings)
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "versions": {
            "melete": metadata.version("melete"),
            "python": platform.python_version(),
            **({"litellm": gateway.version} if gateway else {}),
        },
    }


def of_repository(folder: Path) -> dict[str, Any]:
    """Repository, commit and dirty flag of a folder; empty where git or a repository is not there."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        return {}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=normal")
    return {
        "repository": top.strip(),
        "commit": (_git(folder, "rev-parse", "--verify", "HEAD") or "").strip() or None,
        "dirty": None if changes is None else bool(changes.strip()),
    }


def version_of(command: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """First line that a version command prints, cut short; None where it fails or takes too long."""
    key = tuple(command)
    if key not in _versions:
        _versions[key] = _version(command, environment)
    return _versions[key]


def _version(command: Sequence[str], environment: Mapping[str, str]) -> str | None:
    program = shutil.which(command[0], path=environment.get("PATH")) if command else None
    if program is None:
        return None
    try:
        answer = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=VERSION_TIMEOUT_S,
            env=dict(environment),
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    text = (answer.stdout or answer.stderr).decode("utf-8", "replace").strip()
    line = "".join(char for char in text.split("\n")[0] if char.isprintable())[:VERSION_LENGTH].strip()
    return line if answer.returncode == 0 and line else None


def _git(folder: Path, *args: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *args],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=GIT_TIMEOUT_S,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode("utf-8", "replace")
