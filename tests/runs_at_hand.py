"""A home with two real runs, the second made of the first, a deployment and an own dataset, for tests of what reads."""

from __future__ import annotations

from pathlib import Path

from melete.jobs.execute import Options, execute
from melete.serve import deployment
from melete.settings import Settings

STEPS = 40


def fill_runs(settings: Settings) -> tuple[str, str]:
    """Runs the tests' own process twice and deploys of the second run; returns the runs' ids, oldest first."""
    config = {"steps": STEPS, "save_every": 20, "words": ["Ready", "to count"]}
    first = execute("trial.count", config, Options(settings, name="first"))
    second = execute(
        "trial.count", {"steps": 3, "base": f"{first.id}:{STEPS}"}, Options(settings, name="second")
    )
    guard = {"name": "open", "version": "1", "rules": []}
    made = deployment.Deployment(
        "counter", "1.0", "echo", "", "", tools=(), guard=guard, source=f"{first.id}:{STEPS}"
    )
    deployment.write(settings, made)
    deployment.activate(settings, "counter", "1.0")
    return first.id, second.id


def rows_file(folder: Path, count: int) -> Path:
    """A file of rows that a test adds as a dataset."""
    file = folder / "rows.jsonl"
    file.write_text(
        "".join(f'{{"number": {n}, "word": "word {n}"}}\n' for n in range(count)), encoding="utf-8"
    )
    return file
