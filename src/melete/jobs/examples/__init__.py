"""Job files to begin with: each `.yaml` beside this file is one, its first comment says what it does.

Files in the folder `examples` of the home are found too, and win over those that ship where the name is the same.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from melete.documents import Shelf
from melete.jobs.file import JobFile
from melete.settings import Settings


def files(settings: Settings) -> dict[str, Path]:
    """Name to file of every example, sorted by name."""
    return Shelf("example", JobFile, settings.home / "examples", __name__).paths()


def description(text: str) -> str:
    """The comment that a job file begins with, as one paragraph."""
    words: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words.append(line.lstrip("#").strip())
    return " ".join(words).strip()


def processes(text: str) -> list[str]:
    """Names of the processes of a job file, in order; none of a file that cannot be read."""
    try:
        values = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return [str(one["process"]) for one in values["processes"]]
    except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError):
        return []
