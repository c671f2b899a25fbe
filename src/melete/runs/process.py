"""What a process file holds: a `Config` that extends `ProcessConfig`, `main(config, run)`, and an `EXAMPLE`.

A process file stands in `melete/<system>/processes/<name>.py` and its name is `<system>.<name>`. From its config
class come the CLI flags, the job-file schema and the resolved config of a run. A process file imports nothing heavy
(torch, transformers) at its top, so that `--help` and the schema stay quick; it imports its system inside `main`.

    class Config(ProcessConfig):
        steps: int = Field(100, ge=1, description="Optimizer steps.")

    EXAMPLE = {"steps": 2}          # a config that finishes in seconds; the conformance test runs it

    def main(config: Config, run: Run) -> None:
        for step in run.steps(config.steps): ...

A field that names an input says so, and `--dry-run` then resolves and verifies it:

    base: Annotated[str, Input("model", kinds=("llm",))] = Field("latest", description="Run, folder or hub id.")
    data: Annotated[str, Input("dataset")] = Field("", description="Dataset name; empty is the default text.")

A process file may also hold `plan(config) -> list[tuple[name, value, reason]]`: derived values, which `--dry-run` and
the report show as a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from melete import documents, find
from melete.errors import ConfigError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Input:
    """Marks a config field as the name of an input; an empty string or None is no input.

    Args:
        what: a checkpoint (by run reference), a model (a checkpoint, or a transformers folder or hub id) or a dataset
            (by name or path).
        kinds: kinds of checkpoint that fit.
    """

    what: Literal["checkpoint", "model", "dataset"]
    kinds: tuple[str, ...] = ()


class ProcessConfig(BaseModel):
    """Options that every process has; unknown keys are errors, fields are fixed after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    seed: int = Field(1337, ge=0, lt=2**31, description="Seed of every random draw of the run.")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda, cuda:N or mps."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name in cls.model_fields:
            annotation = cls.model_fields[info.field_name].annotation
            if annotation in (int, float, int | None, float | None):
                raise ValueError(f"input should be a number; found {str(value).lower()}.")
        return value


def config_class(process: str) -> type[ProcessConfig]:
    """The config class of a process, by the process's name."""
    return cast(type[ProcessConfig], find.process(process).Config)


def parse_config(process: str, values: dict[str, Any]) -> ProcessConfig:
    """Validates values against a process's config class.

    Raises:
        UnknownNameError: no such process.
        ConfigError: the first wrong key, with what was found and what is allowed.
    """
    cls = config_class(process)
    try:
        return cls(**values)
    except ValidationError as error:
        raise ConfigError(*describe(cls, error, process)) from error


def describe(cls: type[BaseModel], error: ValidationError, process: str) -> tuple[str]:
    """One readable message for the first problem of a validation error."""
    key, text = first_problem(cls, error)
    return (f"{process}: {key}: {text}",)


def first_problem(cls: type[BaseModel], error: ValidationError) -> tuple[str, str]:
    """The dotted key of the first problem, and what is wrong with it in words."""
    _, key, text = documents.problems(cls, error)[0]
    return key, text


def doc(module: ModuleType) -> str:
    """First line of a process file's docstring: its help."""
    return (module.__doc__ or "").strip().split("\n")[0]
