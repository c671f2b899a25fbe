"""What a process would do, for `--dry-run`: resolved config, verified inputs, derived values. Writes nothing.

Inputs are the config fields marked with `melete.runs.process.Input`: a run reference is resolved to a checkpoint and
its kind compared, a dataset is opened by name. Derived values come from the process file's `plan(config)`, where it
has one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melete import find
from melete.errors import MeleteError
from melete.runs import refs
from melete.runs.process import Input, ProcessConfig, parse_config
from melete.settings import Settings

PINNED = re.compile(r"[^/]+:\d+")


@dataclass(frozen=True)
class Value:
    """One config value; `given` is whether it was given, so not the default."""

    key: str
    value: Any
    given: bool


@dataclass(frozen=True)
class Found:
    """One input and what its reference stands for."""

    key: str
    ref: str
    found: str


@dataclass(frozen=True)
class Derived:
    """One derived value with its reason."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Plan:
    """What `--dry-run` shows."""

    process: str
    values: list[Value]
    inputs: list[Found]
    derived: list[Derived]


def plan(
    process: str, given: dict[str, Any], settings: Settings, pending: frozenset[str] = frozenset()
) -> Plan:
    """Resolves what a process would do.

    Args:
        process: name of the process.
        given: config values that differ from the defaults.
        settings: where runs and datasets are.
        pending: earlier steps of the same job, whose `@name` has no run yet.

    Raises:
        ConfigError: a value is wrong.
        MeleteError: an input does not exist or does not fit.
    """
    config = parse_config(process, given)
    values = [Value(key, getattr(config, key), key in given) for key in type(config).model_fields]
    found = inputs(config, settings, pending)
    try:
        rows = derived(process, config)
    except MeleteError:
        if not any(_waits(item.ref, pending) for item in found):
            raise
        rows = []  # they follow from an input that does not exist yet
    return Plan(process, values, found, rows)


def inputs(
    config: ProcessConfig,
    settings: Settings,
    pending: frozenset[str] = frozenset(),
    only: str | None = None,
) -> list[Found]:
    """The inputs of a config, or of one key of it, each resolved and verified."""
    found = []
    fields = type(config).model_fields
    for key, field in fields.items() if only is None else [(only, fields[only])]:
        value = getattr(config, key)
        refs_of_field = value if isinstance(value, (list, tuple)) else [value] if value else []
        for mark in (mark for mark in field.metadata if isinstance(mark, Input)):
            for ref in map(str, refs_of_field):
                waits = _waits(ref, pending)
                found.append(
                    Found(key, ref, "the run of that step" if waits else _resolve(mark, ref, settings))
                )
    return found


def pin(config: ProcessConfig, settings: Settings) -> ProcessConfig:
    """The config with each reference to a checkpoint replaced by the run and step that it stands for now.

    What `latest` or a name meant is so written into the run's folder, and a resume starts from the same checkpoint.

    Raises:
        MeleteError: a checkpoint does not exist or does not fit.
    """
    pinned = {}
    for key, field in type(config).model_fields.items():
        value = getattr(config, key)
        for mark in field.metadata:
            if isinstance(mark, Input) and mark.what != "dataset" and isinstance(value, str) and value:
                found = _resolve(mark, value, settings)
                pinned[key] = found if PINNED.fullmatch(found) else value
    return config.model_copy(update=pinned)


def _waits(ref: str, pending: frozenset[str]) -> bool:
    return ref.startswith("@") and ref[1:] in pending


def derived(process: str, config: ProcessConfig) -> list[Derived]:
    """The derived values that the process file states."""
    function = getattr(find.process(process), "plan", None)
    return [Derived(str(name), value, reason) for name, value, reason in function(config)] if function else []


def _resolve(mark: Input, ref: str, settings: Settings) -> str:
    if mark.what == "dataset":
        return ", ".join(_dataset(part, settings) for part in ref.split(","))
    if Path(ref).is_file():
        return "file"
    if mark.what == "model" and (Path(ref) / "config.json").is_file():
        return "transformers folder"
    if mark.what == "model" and ref.count("/") == 1 and not Path(ref).exists():
        return "hub id, looked up when it runs"
    folder = refs.checkpoint(settings, ref, mark.kinds)
    step = folder.name.removeprefix("step_")
    ours = folder.parent.parent.parent == settings.runs and step.isdecimal()
    return f"{folder.parent.parent.name}:{int(step)}" if ours else str(folder)


def _dataset(part: str, settings: Settings) -> str:
    """One dataset of a mixture such as `toolcalls:0.7,chat_star:0.3`."""
    from melete import datasets

    name, colon, share = part.strip().rpartition(":")
    if not colon or not share.replace(".", "", 1).isdecimal():
        name = part.strip()
    manifest = datasets.open(name, settings).manifest
    return f"{manifest.name}@{manifest.version}"
