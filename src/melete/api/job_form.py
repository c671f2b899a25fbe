"""Values of a form as the text of a job file and as a command line, with each wrong value named by its field."""

from __future__ import annotations

import re
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from melete import documents
from melete.api.clean import clean
from melete.api.job_records import FieldProblem, JobText
from melete.errors import ConfigError
from melete.runs.process import config_class

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class FormBody(BaseModel):
    """What a form holds."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any] = Field(
        {}, description="Values of options; those that are the default are left out of the text.",
        examples=[{"steps": 20}],
    )  # fmt: skip
    name: str | None = Field(
        None, max_length=100, pattern=NAME, description="Name of the job; the process's by default.",
        examples=["tiny"],
    )  # fmt: skip
    limit_batches: int | None = Field(None, ge=1, le=10**9, description="The most steps per loop.")
    needs: dict[str, Any] = Field(
        {}, description="Device and slots in the queue.", examples=[{"device": "cpu"}]
    )


def text_of(process: str, body: FormBody, defaults: dict[str, Any]) -> JobText:
    """The job file and the command line of a form.

    Args:
        process: name of the process.
        body: what the form holds.
        defaults: value of each option that has one, as JSON.
    """
    from melete.jobs import command_line
    from melete.jobs.file import Needs

    cls = config_class(process)
    problems: list[FieldProblem] = []
    given = dict(body.config)
    try:
        given = {**given, **_as_json(cls(**given), given)}
    except ValidationError as error:
        problems += _problems(cls, error, "")
    except ConfigError as error:
        problems.append(FieldProblem(path="", message=str(error)))
    try:
        Needs.model_validate(body.needs)
    except ValidationError as error:
        problems += _problems(Needs, error, "needs.")
    changed = {key: value for key, value in given.items() if key not in defaults or value != defaults[key]}
    step: dict[str, Any] = {"process": process}
    step |= {"config": changed} if changed else {}
    step |= {"limit_batches": body.limit_batches} if body.limit_batches else {}
    step |= {"needs": body.needs} if body.needs else {}
    name = body.name or re.sub(r"[^A-Za-z0-9]+", "-", process.partition(".")[2]).strip("-")
    text = yaml.safe_dump(
        clean({"name": name, "processes": [step]}), sort_keys=False, allow_unicode=True, width=110
    )
    command = command_line.command(process, changed, name=body.name, limit_batches=body.limit_batches)
    return JobText(ok=not problems, problems=problems, text=text, command=None if problems else command)


def _as_json(config: BaseModel, given: dict[str, Any]) -> dict[str, Any]:
    """The values that were given, as the process understood them: `"4"` of a form is the number 4."""
    understood = config.model_dump(mode="json", include=set(given), fallback=str)
    return {key: clean(value) for key, value in understood.items()}


def _problems(cls: type[BaseModel], error: ValidationError, prefix: str) -> list[FieldProblem]:
    return [
        FieldProblem(path=clean(prefix + key, 500), message=clean(words, 2_000))
        for _, key, words in documents.problems(cls, error)
    ]
