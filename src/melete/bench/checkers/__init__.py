"""Checkers: how one sees that a task was solved; one file a checker, and its name is what a task card says.

A checker file has a pydantic class `Options` and `check(options, evidence) -> Verdict`. What the harness left behind is
evidence, and nobody trusts it: links are not followed, sizes are bounded, and whatever has to be run or matched against
a pattern runs in the sandbox of `evals`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from melete import documents, find
from melete.errors import ConfigError

PACKAGE = "melete.bench.checkers"
LARGEST_BYTES = 10_000_000


@dataclass(frozen=True)
class Evidence:
    """What a session left behind: the folder it worked in, and what its harness printed (None if not caught)."""

    workdir: Path
    output: str | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether the task was solved, a score from 0 to 1 where there is one, and one line that says why."""

    solved: bool
    score: float | None = None
    note: str = ""


def options(name: str, values: Any) -> tuple[BaseModel | None, list[tuple[documents.Place, str, str]]]:
    """The options of a checker, or None and what is wrong with them.

    Raises:
        UnknownNameError: no checker has that name.
    """
    model: type[BaseModel] = find.load(PACKAGE, name, "checker").Options
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        return None, documents.problems(model, error)


def run(checker: dict[str, Any], evidence: Evidence) -> Verdict | None:
    """Judges what a session left behind; None where the card has no checker.

    Raises:
        UnknownNameError: no checker has that name.
        ConfigError: its options are wrong.
        SandboxError: it needs the sandbox, which could not be set up.
    """
    for name, values in checker.items():
        chosen, problems = options(name, values)
        if chosen is None:
            _, key, text = problems[0]
            raise ConfigError(f"checker.{name}.{key}: {text}")
        if evidence.workdir.is_symlink():
            return Verdict(False, 0.0, "the harness put a link in the place of its working copy")
        verdict: Verdict = find.load(PACKAGE, name, "checker").check(chosen, evidence)
        return verdict
    return None


def needs_output(checker: dict[str, Any]) -> bool:
    """Whether a checker looks at what the harness prints, so that it has to be caught."""
    return any(
        bool(getattr(find.load(PACKAGE, name, "checker"), "NEEDS_OUTPUT", lambda values: False)(values))
        for name, values in checker.items()
    )


def evidence_file(workdir: Path, name: str) -> Path | None:
    """A regular file that the harness left, or None; a link that leads out of the folder is no file."""
    path = workdir / name
    try:
        inside = path.resolve().is_relative_to(workdir.resolve())
        return path if inside and path.is_file() and path.stat().st_size <= LARGEST_BYTES else None
    except OSError:
        return None
