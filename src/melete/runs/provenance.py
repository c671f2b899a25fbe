"""Where a run's numbers come from, kept in `provenance.json` and `dirty.patch`.

One entry per sitting (the first start and each resume): command line, commit and uncommitted changes of Melete's source
tree and of the working folder, versions of all installed packages, Python, processor, GPUs and driver. Dataset hashes
and the seed stand beside them. The environment and `.env` files are not kept, because secrets live there.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from melete.runs.folder import replace_file

LARGEST_UNTRACKED = 1_000_000
"""Bytes; larger files that git does not know are named but not copied into the patch."""
SOURCE = Path(__file__).resolve().parents[1]


def record(folder: Path, *, seed: int, argv: list[str] | None = None) -> None:
    """Adds a sitting to the run's `provenance.json`, and the uncommitted changes beside it.

    Raises:
        StorageError: the disk is full.
    """
    kept = read(folder) or {"seed": seed, "datasets": {}, "sittings": []}
    number = len(kept["sittings"]) + 1
    kept["sittings"].append(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "argv": sys.argv if argv is None else argv,
            "cwd": str(Path.cwd()),
            "code": [_repository(top, folder, number, i) for i, top in enumerate(repositories(), 1)],
            "python": platform.python_version(),
            "platform": platform.platform(),
            "machine": machine(),
            "packages": packages(),
        }
    )
    _write(folder, kept)


def keep_datasets(folder: Path, datasets: dict[str, str]) -> None:
    """Adds dataset hashes to the run's `provenance.json`, if they are not there yet.

    Raises:
        StorageError: the disk is full.
    """
    kept = read(folder)
    if kept is not None and not datasets.items() <= kept["datasets"].items():
        kept["datasets"].update(datasets)
        _write(folder, kept)


def read(folder: Path) -> dict[str, Any] | None:
    """The run's provenance, or None where it is missing or unreadable."""
    try:
        values = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def packages() -> dict[str, str]:
    """Installed packages and their versions."""
    found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return {name: found[name] for name in sorted(found, key=str.lower) if name}


def machine() -> dict[str, Any]:
    """Processor, memory and GPUs of this machine."""
    import psutil

    return {
        "host": platform.node(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus(),
    }


def processor() -> str:
    """The processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpus() -> list[dict[str, str]]:
    """Name, driver and memory of the NVIDIA GPUs, asked of their driver without loading torch."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    return [dict(zip(("name", "driver", "memory"), row, strict=True)) for row in rows if len(row) == 3]


def repositories() -> list[Path]:
    """Git work trees that the run's code may come from: Melete's own, and the working folder's if it is another."""
    tops = [top for top in (_top(SOURCE), _top(Path.cwd())) if top is not None]
    return list(dict.fromkeys(tops))


def _top(folder: Path) -> Path | None:
    answer = _git(folder, "rev-parse", "--show-toplevel")
    return Path(answer.strip()) if answer else None


def _repository(top: Path, folder: Path, sitting: int, number: int) -> dict[str, Any]:
    """Commit and uncommitted changes of one work tree; the changes are written to a patch in the run folder."""
    entry: dict[str, Any] = {
        "folder": top.name,
        "commit": (_git(top, "rev-parse", "HEAD") or "").strip() or None,
        "branch": (_git(top, "rev-parse", "--abbrev-ref", "HEAD") or "").strip() or None,
        "patch": None,
    }
    patch, left_out = uncommitted(top)
    if patch:
        name = "dirty" + (f"-{number}" if number > 1 else "") + (f"-sitting{sitting}" if sitting > 1 else "")
        replace_file(folder / f"{name}.patch", patch)
        entry["patch"] = f"{name}.patch"
    if left_out:
        entry["left_out"] = left_out
    return entry


def uncommitted(top: Path) -> tuple[str, list[str]]:
    """A patch of everything not committed, new files included, and the names of files too large for it.

    The work tree's own index stays as it is: new files are added to a copy of it.
    """
    index = (_git(top, "rev-parse", "--git-path", "index") or "").strip()
    new = [
        name
        for name in (_git(top, "ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
        if name
    ]
    new = [name for name in new if not Path(name).name.startswith(".env")]
    small = [name for name in new if _size(top / name) <= LARGEST_UNTRACKED]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "index"
        if (top / index).is_file():
            shutil.copyfile(top / index, copy)
        environ = {"GIT_INDEX_FILE": str(copy)}
        if small:
            _git(top, "add", "--intent-to-add", "--", *small, environ=environ)
        patch = _git(top, "diff", "--binary", "--no-ext-diff", "HEAD", environ=environ) or ""
    return patch, [name for name in new if name not in set(small)]


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return LARGEST_UNTRACKED + 1


def _git(folder: Path, *args: str, environ: dict[str, str] | None = None) -> str | None:
    """Output of a git command, or None where git or a repository is not there."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *args],
            capture_output=True,
            timeout=60,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", **(environ or {})},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode("utf-8", "replace")


def _write(folder: Path, values: dict[str, Any]) -> None:
    replace_file(folder / "provenance.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")
