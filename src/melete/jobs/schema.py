"""JSON schemas for editors and forms: of a job file, with the config of every process in it, and of one process.

A process whose library is not installed here is listed without the shape of its config.
"""

from __future__ import annotations

from typing import Any

from melete import find
from melete.errors import MissingExtraError
from melete.jobs.file import JobFile
from melete.runs.process import config_class


def process(name: str) -> dict[str, Any]:
    """The schema of one process's config.

    Raises:
        UnknownNameError: no such process.
    """
    schema = config_class(name).model_json_schema()
    return {**schema, "title": name, "description": find.process(name).__doc__ or ""}


def job_file() -> dict[str, Any]:
    """The schema of a job file; `config` is checked against the process that a step names."""
    schema = JobFile.model_json_schema()
    configs: dict[str, Any] = {}
    for name in find.processes():
        try:
            configs[name] = process(name)
        except MissingExtraError:
            configs[name] = {"type": "object", "title": name}
    step = schema["$defs"]["Step"]
    step["properties"]["process"]["enum"] = sorted(configs)
    step["allOf"] = [
        {
            "if": {"properties": {"process": {"const": name}}},
            "then": {"properties": {"config": {"$ref": f"#/$defs/{name}"}}},
        }
        for name in configs
    ]
    for name, config in configs.items():
        schema["$defs"].update(config.pop("$defs", {}))
        config["properties"] = {
            # a job file may name an earlier step where the config wants a value
            key: {"anyOf": [value, {"type": "string", "pattern": "^@"}]}
            if value.get("type") == "string"
            else value
            for key, value in config.get("properties", {}).items()
        }
        schema["$defs"][name] = config
    return schema
