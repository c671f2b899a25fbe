"""A home with two real runs, the second made of the first, a deployment, and a queue, for tests of what reads."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from melete.jobs import claims
from melete.jobs.execute import Options, execute
from melete.jobs.queue import opened
from melete.runs import folder
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


def fill_queue(settings: Settings) -> tuple[str, str]:
    """Queues two jobs, of which a worker that lives as long as this process has taken one; returns the jobs' ids."""
    text = "name: {}\nprocesses:\n  - {{process: trial.count, name: one}}\n  - {{process: trial.count, name: two}}\n"
    with opened(settings) as queue:
        taken = queue.submit_text(text.format("taken"), priority=2)
        waiting = queue.submit_text(text.format("waiting"))
        pid = os.getpid()
        its_start_s = folder.process_start_s(pid) or 0.0
        worker = claims.Worker("here-1", queue.home, socket.gethostname(), pid, its_start_s)
        claims.enter(queue.engine, worker)
        claim = claims.claim(queue.engine, worker)
        assert claim is not None
        assert claim.job == taken.id
    return taken.id, waiting.id


def rows_file(folder: Path, count: int) -> Path:
    """A file of rows that a test adds as a dataset."""
    file = folder / "rows.jsonl"
    file.write_text(
        "".join(f'{{"number": {n}, "word": "word {n}"}}\n' for n in range(count)), encoding="utf-8"
    )
    return file
