"""A job file: a name and a list of processes, in YAML or JSON, checked as a whole before anything runs.

    name: tiny
    processes:
      - process: llm.pretrain
        name: base                  # optional, the process's own name by default
        config: {depth: 4}
      - process: llm.sft
        config: {base: "@base"}     # the run of an earlier process of this job
        after: [base]               # in the queue: what it waits for, the process before it by default
        needs: {device: cuda}       # in the queue: what it takes up, one slot of the worker by default

Each error names `file:line: key`, what was found and what is allowed; `melete.documents` reads the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from melete import documents, find
from melete.documents import Document, Place, Problem
from melete.errors import ConfigError, JobFileError, MissingExtraError, UnknownNameError
from melete.runs.process import config_class


class Needs(BaseModel):
    """What a process takes up while it runs in the queue."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    device: Literal["any", "cpu", "cuda"] = Field(
        "any", description="Kind of slot: a GPU, the CPU, or a GPU where the worker has any."
    )
    slots: int = Field(1, ge=1, le=64, description="How many: GPUs, or CPU slots of the worker.")
    resources: dict[str, float] = Field(
        {}, description="Resources of a Ray node, such as {big_memory: 1}; only for the executor ray."
    )
    gpu: str = Field(
        "", description="GPU target such as runpod:H100 or kubernetes:A100:8; only for the executor skypilot."
    )
    budget_usd: float = Field(
        0.0,
        ge=0,
        description="The most that renting may be estimated to cost; only for the executor skypilot.",
    )


class Step(BaseModel):
    """One process of a job."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    process: str = Field(description="Process to run, such as llm.pretrain.")
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="Name of this step; the process's by default.",
    )
    config: dict[str, Any] = Field({}, description="Values that differ from the process's defaults.")
    limit_batches: int | None = Field(None, ge=1, description="The most steps per loop.")
    after: list[str] | None = Field(
        None, description="Names of the processes that must have succeeded; the one before it by default."
    )
    needs: Needs = Field(
        default_factory=lambda: Needs.model_validate({}),
        description="What it takes up while it runs in the queue.",
    )
    executor: str = Field("local", description="How a worker carries it out: local, ray or skypilot.")
    retries: int = Field(
        1,
        ge=0,
        le=100,
        description="How often it is tried again, from its checkpoint, if it dies or crashes.",
    )

    @property
    def label(self) -> str:
        """The step's name in the job."""
        return self.name or self.process.partition(".")[2]


class JobFile(BaseModel):
    """A job: processes that run in order."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name of the job.")
    processes: list[Step] = Field(min_length=1, description="Processes in the order in which they run.")
    next: list[str] = Field([], description="Lines to print when the job has succeeded: what to try next.")


def read(path: Path) -> JobFile:
    """Reads and checks a job file, with the config of every process in it.

    Raises:
        JobFileError: the first thing that is wrong, with its file, line and key.
    """
    document, problems = check(path)
    if document is None or problems:
        raise documents.failure(problems, JobFileError)
    return document.record


def check(path: Path, text: str | None = None) -> tuple[Document[JobFile] | None, list[Problem]]:
    """Reads a job file; returns what could be read of it, and everything that is wrong in it.

    Args:
        path: the file; with a `text`, only its name, whose suffix says what it is.
        text: what the file holds, where it is not written yet.
    """
    document, problems = documents.check(path, JobFile, "job file", text=text)
    if document is None:
        return None, problems
    earlier: list[str] = []
    for number, step in enumerate(document.record.processes):
        wrong = _problems(number, step, earlier)
        problems += [document.problem(place, words, key=key) for place, key, words in wrong]
        earlier.append(step.label)
    return document, problems


def waits_for(job: JobFile) -> list[list[str]]:
    """For each process the names of those that must have succeeded: `after`, and whose runs its config names."""
    found = []
    for number, step in enumerate(job.processes):
        before = [job.processes[number - 1].label] if number else []
        named = [name for value in step.config.values() for name in references(value)]
        found.append(list(dict.fromkeys([*(before if step.after is None else step.after), *named])))
    return found


def substitute(config: dict[str, Any], runs: dict[str, str]) -> dict[str, Any]:
    """Replaces each `@step` by the id of the run that executed the step."""
    return {key: _replaced(value, runs) for key, value in config.items()}


def references(value: Any) -> list[str]:
    """The step names that `@step` values inside a config name."""
    if isinstance(value, str):
        return [value[1:]] if value.startswith("@") else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [name for item in items for name in references(item)]


def _replaced(value: Any, runs: dict[str, str]) -> Any:
    if isinstance(value, str) and value.startswith("@"):
        return runs[value[1:]]
    if isinstance(value, list):
        return [_replaced(item, runs) for item in value]
    if isinstance(value, dict):
        return {key: _replaced(item, runs) for key, item in value.items()}
    return value


def _problems(number: int, step: Step, earlier: list[str]) -> Iterator[tuple[Place, str, str]]:
    """What pydantic cannot see: the process, its config, step names and references; each with its place and key."""
    here: Place = ("processes", number)
    if step.label in earlier:
        problem = f"{step.label!r} is the name of an earlier process: give this one another name."
        yield (*here, "name" if step.name else "process"), "name", problem
    try:
        find.path("melete.jobs.executors", step.executor, "executor", ".py")
    except UnknownNameError as error:
        yield (*here, "executor"), "executor", str(error)
    known = f"Earlier processes: {', '.join(earlier) or 'none'}."
    for name in step.after or ():
        if name not in earlier:
            yield (*here, "after"), "after", f"no earlier process is named {name!r}. {known}"
    for key, value in step.config.items():
        for name in references(value):
            if name not in earlier:
                yield (*here, "config", key), key, f"no earlier process is named {name!r}. {known}"
    try:
        cls = config_class(step.process)
    except (UnknownNameError, MissingExtraError) as error:
        yield (*here, "process"), "process", str(error)
        return
    try:
        cls(**step.config)
    except ValidationError as error:
        for place, key, words in documents.problems(cls, error):
            yield (*here, "config", *place), key, words
    except ConfigError as error:
        yield (*here, "config"), "config", str(error)
