"""A substitute for SkyPilot that rents nothing: the task's commands run here, in a folder that plays the machine.

`install(folder)` writes the commands `sky`, `python` (for the catalogue) and `rsync` into `folder/bin`. What they do is
set by files in `folder`: `check` (what `sky check` says), `prices` (JSON rows), `fail` (`provision`, `setup`, `job`,
`copy` or `down`), `saved` (the run that a failing job leaves). `folder/calls` keeps what was called. Set-up is not run:
the machine's Python is this one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


def install(folder: Path) -> Path:
    """Writes the commands; returns the folder to put on the PATH."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    for name in ("sky", "python", "rsync"):
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {folder} {name} "$@"\n')
        script.chmod(0o755)
    (folder / "check").write_text("RunPod: enabled\n")
    return commands


def sky(folder: Path, args: list[str]) -> int:
    """The command `sky`."""
    failing = _read(folder / "fail")
    if args[0] == "check":
        print(_read(folder / "check"))
        return 0
    if args[0] == "down":
        return 1 if failing == "down" else 0
    if failing == "provision":
        print("sky.exceptions.ResourcesUnavailableError: no machine is free")
        return 1
    if failing == "setup":
        print("ERROR: Job 1's setup failed with return code list: [1]")
        return 1
    if failing in ("job", "copy"):
        return broken_run(folder, failing)
    return run(folder, Path(args[-1]))


def broken_run(folder: Path, failing: str) -> int:
    """A job that starts and, with `job`, fails after it has saved what lies in `folder/saved`."""
    print("melete: the job starts")
    runs = folder / "machine" / "melete" / "home" / "runs"
    runs.mkdir(parents=True)
    if (folder / "saved").is_dir():
        shutil.copytree(folder / "saved", runs / "20260101-000000-job-0000")
    return 9 if failing == "job" else 0


def run(folder: Path, file: Path) -> int:
    """Copies what the task says and runs its command."""
    import yaml

    task = yaml.safe_load(file.read_text(encoding="utf-8"))
    home = folder / "machine"
    work = home / "sky_workdir"
    shutil.copytree(task["workdir"], work)
    for there, here in task.get("file_mounts", {}).items():
        target = home / there.removeprefix("~/")
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if Path(here).is_dir() else shutil.copyfile)(here, target)
    python = home / "melete" / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(folder / "real-python")
    (folder / "real-python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "real-python").chmod(0o755)
    environ = {**os.environ, "HOME": str(home)}
    (folder / "environ").write_text(json.dumps(sorted(environ)))
    return subprocess.run(["bash", "-c", task["run"]], cwd=work, env=environ, check=False).returncode


def rsync(folder: Path, args: list[str]) -> int:
    """The command `rsync`, from the folder that plays the machine."""
    if _read(folder / "fail") == "copy":
        print("rsync: connection unexpectedly closed")
        return 12
    there = args[-2].partition(":")[2].removeprefix("~/")
    shutil.copytree(folder / "machine" / there, args[-1], dirs_exist_ok=True)
    return 0


def catalogue(folder: Path) -> int:
    """The catalogue's script."""
    found = _read(folder / "prices")
    if found:
        print("some words of SkyPilot's own")
        print(f"PRICES{found}")
    return 0 if found else 1


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def main() -> int:
    """What one of the commands does."""
    folder, name, args = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    with (folder / "calls").open("a") as calls:
        calls.write(" ".join([name, *args[:2]]).split("\n")[0] + "\n")
    if name == "sky":
        return sky(folder, args)
    return rsync(folder, args) if name == "rsync" else catalogue(folder)


if __name__ == "__main__":
    sys.exit(main())
