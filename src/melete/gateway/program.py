"""Which LiteLLM is started: looked for in four places, never downloaded unasked, made by `melete gateway install`.

1. `MELETE_LITELLM`, the path of a program `litellm`;
2. the environment that Melete runs in, if the whole proxy is installed there in the version that is pinned;
3. `<home>/gateway/env`, made by `melete gateway install` from the lock file beside this file;
4. `.envs/litellm` of a checkout, made by `python tools/envs.py litellm`.

It is run as a program of its own Python, because its pins fight ours; nothing of ours is installed beside it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from melete.errors import GatewayError
from melete.settings import Settings

LOCK = Path(__file__).with_name("litellm.lock")
STAMP = "made-from.sha256"
NEEDED = ("litellm", "prisma", "prometheus_client", "apscheduler", "psycopg", "uvicorn")
"""Packages of a whole proxy; without `prisma` it answers 500 where 400 is meant."""


@dataclass(frozen=True)
class Program:
    """A LiteLLM that can be started: its interpreter, its version, and the place where it was found in words."""

    python: Path
    version: str
    place: str


def pinned_version() -> str:
    """The version of LiteLLM that the lock file pins."""
    found = re.search(r"^litellm==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def find(settings: Settings) -> Program:
    """The LiteLLM to start.

    Raises:
        GatewayError: there is none; or `MELETE_LITELLM` names something else.
    """
    if settings.litellm is not None:
        return _told(settings.litellm)
    for python, place in (
        (Path(sys.executable), "this environment"),
        (settings.gateway / "env" / "bin" / "python", "the home folder"),
        (Path(__file__).parents[3] / ".envs" / "litellm" / "bin" / "python", "the checkout"),
    ):
        version = _version(python)
        if version == pinned_version():
            return Program(python, version, place)
    raise GatewayError(
        "LiteLLM, the proxy behind the gateway, is not installed.",
        allowed=f"Version {pinned_version()} with all of its proxy is looked for in MELETE_LITELLM, in this "
        f"environment and in {settings.gateway / 'env'}.",
        next_step="Install it there with: melete gateway install",
    )


def install(settings: Settings) -> Program:
    """Makes `<home>/gateway/env` from the lock file; one that is current is left alone.

    Packages come from where pip is configured to look; uv installs them if it is there. Bytecode is compiled at once,
    so that the first start is as quick as the next.

    Raises:
        GatewayError: an installer failed; what it said stands above.
    """
    folder = settings.gateway / "env"
    python, stamp = folder / "bin" / "python", folder / STAMP
    digest = sha256(LOCK.read_bytes()).hexdigest()
    if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == digest and _version(python)):
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(folder))
        uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        if uv:
            _run(
                uv,
                "pip",
                "install",
                "--quiet",
                "--compile-bytecode",
                "--python",
                str(python),
                "-r",
                str(LOCK),
            )
        else:
            _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(LOCK))
        stamp.write_text(digest, encoding="utf-8")
    return Program(python, pinned_version(), "the home folder")


def _told(path: Path) -> Program:
    """The interpreter of a program `litellm`: beside it, or in its first line."""
    if not path.is_file():
        raise GatewayError(
            f"MELETE_LITELLM is {path}, which is no file.", next_step="Name a program litellm."
        )
    first = path.open("rb").readline()
    named = Path(os.fsdecode(first[2:].split()[0])) if first.startswith(b"#!") and first[2:].split() else None
    for python in (path.parent / "python", named):
        version = _version(python) if python is not None else None
        if python is not None and version is not None:
            return Program(python, version, "MELETE_LITELLM")
    raise GatewayError(
        f"MELETE_LITELLM is {path}, beside which no Python has all of LiteLLM's proxy.",
        allowed=f"Needed there: {', '.join(NEEDED)}.",
        next_step="Unset it, or install with: pip install 'litellm[proxy]' prisma prometheus-client 'psycopg[binary]'",
    )


def _version(python: Path) -> str | None:
    """Version of the LiteLLM in an interpreter's environment, read from its folders; None if it is not whole."""
    for packages in sorted(python.parent.parent.glob("lib/python3.*/site-packages")):
        found = next(packages.glob("litellm-*.dist-info"), None)
        if python.exists() and found is not None and all((packages / name).is_dir() for name in NEEDED):
            return found.name.removeprefix("litellm-").removesuffix(".dist-info")
    return None


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise GatewayError(
            f"LiteLLM could not be installed: {Path(command[0]).name} failed ({error.__class__.__name__}).",
            allowed="What it said stands above.",
            next_step="See that pip can reach a package index, then try again; what is there is used.",
        ) from error
