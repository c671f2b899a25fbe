"""Processes: the kinds of run that can be started, with what a form for their options needs."""

from __future__ import annotations

import enum
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from melete import find
from melete.api import job_form, paging
from melete.api.clean import clean
from melete.api.job_form import FormBody
from melete.api.job_records import JobText
from melete.api.records import Process, ProcessDetail
from melete.api.store import PLAIN, Asked, Listed, Store
from melete.errors import UnknownNameError
from melete.runs.process import Input, config_class

ProcessName = Annotated[
    str, Path(max_length=100, pattern=PLAIN, description="system.name.", examples=["llm.pretrain"])
]


def routes(store: Store) -> APIRouter:
    """A list by name, and one of it with its options."""
    router = APIRouter()

    @router.get("")
    def list_processes(asked: Annotated[Asked, Query()]) -> Listed[Process]:
        """List processes by name."""
        return paging.page(
            [_process(name) for name in find.processes()],
            lambda one: one.name,
            of="processes",
            limit=asked.limit,
            cursor=asked.cursor,
        )

    @router.get("/{name}")
    def get_process(name: ProcessName) -> ProcessDetail:
        """One process: the schema of its options, their defaults and an example."""
        from melete.jobs import schema

        if name not in find.processes():
            raise UnknownNameError("process", name, find.processes())
        module, config = find.process(name), config_class(name)
        marks: dict[str, str] = {
            key: mark.what
            for key, field in config.model_fields.items()
            for mark in field.metadata
            if isinstance(mark, Input)
        }
        return ProcessDetail(
            **_process(name).model_dump(),
            text=module.__doc__ or "",
            options=clean(schema.process(name)),
            defaults=defaults(config),
            example=clean(module.EXAMPLE),
            inputs=marks,
        )

    @router.post("/{name}/job")
    def make_job_text(name: ProcessName, body: FormBody) -> JobText:
        """Values of a form as a job file's text and as a command line; nothing is queued.

        Each wrong value is named by the path of its field. Values may be text, as a form has them.
        """
        if name not in find.processes():
            raise UnknownNameError("process", name, find.processes())
        return job_form.text_of(name, body, defaults(config_class(name)))

    return router


def defaults(config: type[BaseModel]) -> dict[str, Any]:
    """The value of each option that has one, computed ones too, as JSON."""
    found = {
        key: field.get_default(call_default_factory=True, validated_data={})
        for key, field in config.model_fields.items()
        if not field.is_required()
    }
    plain = {key: value for key, value in found.items() if value is not PydanticUndefined}
    return {
        key: clean(to_jsonable_python(value.value if isinstance(value, enum.Enum) else value, fallback=str))
        for key, value in plain.items()
    }


def _process(name: str) -> Process:
    system, _, stem = name.partition(".")
    file = find.folder_of(f"melete.{system}.processes") / f"{stem}.py"
    return Process(
        name=name, system=system, description=find.first_sentence(file), command=f"melete {system} {stem}"
    )
