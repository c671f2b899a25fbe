"""A job file: a name and a list of processes, in YAML or JSON, checked as a whole before anything runs.

    name: tiny
    processes:
      - process: llm.pretrain
        name: base                  # optional, the process's own name by default
        config: {depth: 4}
      - process: llm.sft
        config: {base: "@base"}     # the run of an earlier process of this job

Each error names `file:line: key`, what was found and what is allowed. The file is read as nodes, so that a key that
stands twice is seen and every value knows its line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from melete import find
from melete.errors import ConfigError, JobFileError, UnknownNameError
from melete.runs.process import config_class, first_problem, location

Key = str | int


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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobFileError(f"{path}: the job file cannot be read ({error}).") from error
    node, values = _parse(path, text)
    try:
        job = JobFile.model_validate(values)
    except ValidationError as error:
        key, problem = first_problem(_model_at(error), error)
        raise _error(path, node, location(error), key, problem) from error
    earlier: list[str] = []
    for number, step in enumerate(job.processes):
        _check_step(path, node, number, step, earlier)
        earlier.append(step.label)
    return job


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


def _parse(path: Path, text: str) -> tuple[yaml.Node, Any]:
    """The file as nodes and as values."""
    if path.suffix == ".json":
        text = re.sub(r"^\t+", lambda tabs: " " * len(tabs[0]), text, flags=re.MULTILINE)
    try:
        loader = yaml.SafeLoader(text)
        node: yaml.Node | None = loader.get_single_node()
        if node is None:
            raise JobFileError(
                f"{path}:1: the job file is empty.", allowed="It needs the keys name and processes."
            )
        _refuse_duplicates(path, node, set())
        return node, loader.construct_document(node)
    except RecursionError as error:
        raise JobFileError(f"{path}:1: the job file is nested too deeply.") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        what = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise JobFileError(f"{path}:{line}: not YAML: {what}.") from error


def _refuse_duplicates(path: Path, node: yaml.Node, above: set[int]) -> None:
    """Refuses a key that stands twice, and a node that holds itself by an alias."""
    if id(node) in above:
        raise JobFileError(
            f"{path}:{node.start_mark.line + 1}: not a job file: an alias stands inside its anchor."
        )
    below = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise JobFileError(f"{path}:{line}: a key has to be a word.")
            if key.value in seen:
                raise JobFileError(
                    f"{path}:{line}: {key.value}: stands twice, first in line {seen[key.value]}."
                )
            seen[key.value] = line
            _refuse_duplicates(path, value, below)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(path, item, below)


def _check_step(path: Path, node: yaml.Node, number: int, step: Step, earlier: list[str]) -> None:
    """Checks what pydantic cannot see: the process, its config, step names and references."""
    here: tuple[Key, ...] = ("processes", number)
    try:
        find.process(step.process)
    except UnknownNameError as error:
        raise _error(path, node, (*here, "process"), "process", str(error)) from error
    if step.label in earlier:
        problem = f"{step.label!r} is the name of an earlier process: give this one another name."
        raise _error(path, node, (*here, "name" if step.name else "process"), "name", problem)
    for key, value in step.config.items():
        for name in references(value):
            if name not in earlier:
                known = (
                    f"Earlier processes: {', '.join(earlier)}." if earlier else "No process comes before it."
                )
                raise _error(
                    path, node, (*here, "config", key), key, f"no earlier process is named {name!r}. {known}"
                )
    cls = config_class(step.process)
    try:
        cls(**step.config)
    except ValidationError as error:
        key, problem = first_problem(cls, error)
        raise _error(path, node, (*here, "config", *location(error)), key, problem) from error
    except ConfigError as error:
        raise _error(path, node, (*here, "config"), "config", str(error)) from error


def _model_at(error: ValidationError) -> type[BaseModel]:
    """The model that a problem of a job file is in, for the list of known keys."""
    return Step if len(location(error)) > 2 else JobFile


def _error(path: Path, node: yaml.Node, place: tuple[Key, ...], key: str, problem: str) -> JobFileError:
    return JobFileError(f"{path}:{_line(node, place)}: {key}: {problem}")


def _line(node: yaml.Node, place: tuple[Key, ...]) -> int:
    """Line of the deepest node along a place that is in the file; of its key where there is one."""
    line: int = node.start_mark.line + 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == part), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
