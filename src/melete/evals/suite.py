"""A suite: a YAML file in `suites/` that lists tasks and their options; its name is the file's name.

    description: One sentence.
    tasks:
      core: {limit: 20}
      toolcalls: {}

A key that no one knows, a wrong type or a task that does not exist is an error that names the file and the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from melete import find
from melete.errors import ConfigError, UnknownNameError
from melete.evals import task as tasks
from melete.evals.task import TaskConfig

SUITES = "melete.evals.suites"
KEYS = ("description", "tasks")


@dataclass(frozen=True)
class Suite:
    """Tasks by name, in order, with their options."""

    name: str
    description: str
    tasks: dict[str, TaskConfig]


def names() -> list[str]:
    """Names of all suites."""
    return find.names(SUITES, ".yaml")


def load(name: str) -> Suite:
    """Loads a suite by name, or from the path of a YAML file.

    Raises:
        UnknownNameError: no suite has that name.
        ConfigError: the file is not a suite; the message starts with file and key.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else find.path(SUITES, name, "suite")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: the suite cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a suite is a mapping.", allowed=f"Keys: {', '.join(KEYS)}.")
    unknown = [key for key in values if key not in KEYS]
    if unknown:
        raise ConfigError(f"{path}: {unknown[0]}: unknown key.", allowed=f"Keys: {', '.join(KEYS)}.")
    if not isinstance(values.get("description"), str):
        raise ConfigError(f"{path}: description: a sentence is needed.")
    listed = values.get("tasks")
    if not isinstance(listed, dict) or not listed:
        raise ConfigError(f"{path}: tasks: a mapping of task name to options is needed.")
    configs = {str(task): _config(path, str(task), options) for task, options in listed.items()}
    return Suite(path.stem, values["description"], configs)


def of_tasks(chosen: Sequence[str]) -> Suite:
    """A suite of single tasks with their default options.

    Raises:
        UnknownNameError: no such task.
    """
    return Suite(
        "tasks",
        "Tasks chosen by name.",
        {name: tasks.config_class(name).model_validate({}) for name in chosen},
    )


def limited(suite: Suite, limit: int | None) -> Suite:
    """The suite with another limit in every task; None leaves it as it is."""
    if limit is None:
        return suite
    update = {"limit": limit}
    changed = {name: config.model_copy(update=update) for name, config in suite.tasks.items()}
    return Suite(suite.name, suite.description, changed)


def _config(path: Path, task: str, options: Any) -> TaskConfig:
    try:
        cls = tasks.config_class(task)
    except UnknownNameError as error:
        raise ConfigError(f"{path}: tasks.{task}: {error.found}", allowed=error.allowed) from error
    if not isinstance(options, Mapping | None):
        raise ConfigError(f"{path}: tasks.{task}: options are a mapping, found {options!r}.")
    try:
        return cls.model_validate(options or {})
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in ("tasks", task, *problem["loc"]))
        raise ConfigError(
            f"{path}: {key}: {problem['msg']}; found {problem.get('input')!r}.",
            allowed=f"Options of {task}: {', '.join(cls.model_fields)}.",
        ) from error
