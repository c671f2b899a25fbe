"""Runs a Python program over what a harness left, in the sandbox of `evals`, on a copy that it cannot keep.

The files are handed over as data and unpacked inside; the program sees them in its working folder and nothing else of
this machine. Exit code 0 counts only if the program came to its end: what is run may hold code that a model wrote,
and `os._exit(0)` at its import is no success. That code runs in the same process as the program that judges it, so a
solution which looks for the judge can fool it; for a function under test `evals` has a judge of its own.
"""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from melete.errors import ConfigError
from melete.evals import sandbox

LARGEST_BYTES = 10_000_000
MOST_FILES = 2_000
LEFT_OUT = {".git", "__pycache__", "node_modules", ".venv"}
"""Folders of a working copy that no checker needs."""
_START = """
import base64, os, runpy, sys
os.mkdir("work")
os.chdir("work")
for _name, _data in {files!r}.items():
    os.makedirs(os.path.dirname(_name) or ".", exist_ok=True)
    with open(_name, "wb") as _out:
        _out.write(base64.b64decode(_data))
sys.path.insert(0, os.getcwd())
_code = 0
try:
{program}
except SystemExit as _end:
    _code = _end.code if isinstance(_end.code, int) else int(_end.code is not None)
    print(_end.code if isinstance(_end.code, str) else "", file=sys.stderr)
sys.stdout.flush()
print("\\n{nonce}", _code, flush=True)
os._exit(_code)
"""


@dataclass(frozen=True)
class Judged:
    """How the program ended: whether it came to its end with exit code 0, and what it printed."""

    passed: bool
    exit_code: int | None
    output: str
    note: str


def judge(
    program: str,
    workdir: Path,
    *,
    files: dict[str, str] | None = None,
    without: tuple[str, ...] = (),
    limits: sandbox.Limits,
    packages: bool = False,
) -> Judged:
    """Runs a program in a copy of a working folder.

    Args:
        program: Python source, whose own files are in the current folder.
        workdir: what the harness left.
        files: the judge's own files, which win over what the harness left under their names.
        without: names of files that are left out wherever they lie.
        limits: what it may use.
        packages: whether installed packages can be imported.

    Raises:
        SandboxError: the sandbox could not be set up.
        ConfigError: the working folder is too large to be handed over.
    """
    packed = pack(workdir, without)
    packed |= {name: base64.b64encode(text.encode()).decode() for name, text in (files or {}).items()}
    nonce = secrets.token_hex(16)
    body = "\n".join(f"    {line}" for line in program.strip().split("\n"))
    source = _START.format(files=packed, program=body, nonce=nonce)
    result = sandbox.run(source, limits, packages=packages)
    output, told, end = result.stdout.rpartition(f"\n{nonce} ")
    if not told:
        reason = {"timeout": f"no end after {limits.timeout_s:g} s", "output_limit": "it printed too much"}
        said = _last_line(result.stderr or result.stdout)
        note = reason.get(result.outcome) or said or "it left before its end"
        return Judged(False, result.exit_code, result.stdout + result.stderr, note)
    code = int(end.split()[0])
    note = "" if code == 0 else _last_line(result.stderr) or _last_line(output)
    return Judged(code == 0, code, output + result.stderr, note)


def pack(workdir: Path, without: tuple[str, ...] = ()) -> dict[str, str]:
    """The regular files of a folder in base64; links are left out, as they may lead anywhere.

    Raises:
        ConfigError: they are too many or too large.
    """
    packed: dict[str, str] = {}
    size = 0
    for place, folders, names in os.walk(workdir, followlinks=False):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        for name in sorted(names):
            path = Path(place, name)
            if name in without or path.is_symlink() or not path.is_file():
                continue
            size += path.stat().st_size
            if size > LARGEST_BYTES or len(packed) >= MOST_FILES:
                raise ConfigError(
                    f"What the harness left is too large to be checked: over {LARGEST_BYTES:,} bytes or "
                    f"{MOST_FILES:,} files."
                )
            packed[path.relative_to(workdir).as_posix()] = base64.b64encode(path.read_bytes()).decode()
    return packed


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
