"""The command line that runs a process with some config values: what a form shows beside its job file.

The flags are those of `melete <system> <process>`. What no flag can say (a null, an empty list, a list of lists, the
run of an earlier process of a job) has no command line; then only the job file does the same.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from melete.jobs.file import references


def command(
    process: str,
    given: Mapping[str, Any],
    *,
    name: str | None = None,
    limit_batches: int | None = None,
) -> str | None:
    """The command line, quoted for a shell; None where there is none.

    Args:
        process: name of the process, such as `llm.pretrain`.
        given: config values as JSON has them.
        name: name of the run.
        limit_batches: the most steps per loop.
    """
    words = ["melete", *process.split(".", 1)]
    for key, value in given.items():
        flags = None if references(value) else _flags("--" + key.replace("_", "-"), value)
        if flags is None:
            return None
        words += flags
    words += [f"--name={name}"] if name else []
    words += [f"--limit-batches={limit_batches}"] if limit_batches else []
    return shlex.join(words)


def _flags(flag: str, value: Any) -> list[str] | None:
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, dict):
        return [flag, json.dumps(value, ensure_ascii=False)]
    if isinstance(value, list):
        plain = value and all(isinstance(item, str | int | float) for item in value)
        return [word for item in value for word in _word(flag, item)] if plain else None
    return None if value is None else _word(flag, value)


def _word(flag: str, value: Any) -> list[str]:
    said = str(value)
    return [f"{flag}={said}"] if said.startswith("-") or not said else [flag, said]
