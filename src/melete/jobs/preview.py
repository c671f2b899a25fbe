"""What a job file's text would do, without queueing it: everything that is wrong, by line, and each process resolved.

    found = preview(text, settings)
    found.problems      what keeps it from being submitted
    found.warnings      what would fail later as things are now: a dataset that is not at hand, a run that is gone
    found.steps         each process with all its options and the command that runs it alone

It reads and never writes. Inputs are looked up by name and not opened, so that it is quick enough for an editor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melete import documents
from melete.documents import Document, Problem
from melete.errors import MeleteError
from melete.jobs import command_line
from melete.jobs import file as job_file
from melete.jobs import plan as plans
from melete.jobs.file import JobFile
from melete.jobs.queue import file_name
from melete.runs.process import config_class
from melete.settings import Settings


@dataclass(frozen=True)
class Step:
    """One process as it would run; `config` holds all options, `given` the names of those that the text gives."""

    name: str
    process: str
    config: dict[str, Any]
    given: list[str]
    after: list[str]
    needs: dict[str, Any]
    executor: str
    retries: int
    line: int
    command: str | None


@dataclass(frozen=True)
class Preview:
    """What a text would do; without steps where it has problems."""

    problems: list[Problem]
    warnings: list[Problem]
    name: str | None
    steps: list[Step]


def preview(text: str, settings: Settings) -> Preview:
    """Checks a text and resolves what it says."""
    document, problems = job_file.check(Path(file_name(text)), text)
    if document is None:
        return Preview(problems, [], None, [])
    job = document.record
    if problems:
        return Preview(sorted(problems, key=lambda one: one.line), [], job.name, [])
    after = job_file.waits_for(job)
    steps = [_step(document, number, step, after[number]) for number, step in enumerate(job.processes)]
    return Preview([], _warnings(document, settings), job.name, steps)


def _step(document: Document[JobFile], number: int, step: job_file.Step, after: list[str]) -> Step:
    config = config_class(step.process)(**step.config)
    return Step(
        name=step.label,
        process=step.process,
        config=config.model_dump(mode="json", fallback=str),
        given=list(step.config),
        after=after,
        needs=step.needs.model_dump(),
        executor=step.executor,
        retries=step.retries,
        line=documents.line(document.node, ("processes", number)),
        command=command_line.command(
            step.process, step.config, name=step.name, limit_batches=step.limit_batches
        ),
    )


def _warnings(document: Document[JobFile], settings: Settings) -> list[Problem]:
    """Inputs that are not there now; they may be by the time the job runs."""
    found: list[Problem] = []
    earlier: set[str] = set()
    for number, step in enumerate(document.record.processes):
        config = config_class(step.process)(**step.config)
        for key in type(config).model_fields:
            try:
                plans.inputs(config, settings, frozenset(earlier), only=key)
            except MeleteError as error:
                place = ("processes", number, "config", key)
                found.append(document.problem(place, str(error), key=key))
        earlier.add(step.label)
    return found
