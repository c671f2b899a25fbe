"""A job as a SkyPilot task: what is copied there, how the machine is made ready, what runs, and when it ends itself.

The machine gets this Melete, the pinned requirements (their torch comes from PyPI and is the CUDA build there), the job
file, the base checkpoint and the datasets that the config names. It works in `~/melete/home`, whose runs are copied
back. Nothing of the environment here goes along, no token and no key.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import melete
from melete.agents.compute.cloud import Cloud
from melete.errors import ConfigError
from melete.runs.folder import replace_file
from melete.runs.process import Input, config_class, parse_config
from melete.settings import Settings

IDLE_MINUTES = 10
STARTED = "melete: the job starts"
REMOTE_HOME = "~/melete/home"
SET_UP = """\
set -e
export PATH="$HOME/.local/bin:$PATH"
# Images of providers have older Pythons; uv brings the one that is needed.
command -v uv || python3 -m pip install --quiet --user uv || curl -LsSf https://astral.sh/uv/install.sh | sh
uv venv --quiet --python {python} ~/melete/env
uv pip install --quiet --python ~/melete/env/bin/python -r requirements.txt
~/melete/env/bin/python -c "import torch; assert torch.cuda.is_available(), 'no working CUDA device here'"
"""
RUN = """\
set -e
if [ -e ~/melete/base ]; then ln -sfn ~/melete/base base; fi
export PYTHONPATH="$PWD/app" MELETE_HOME="$HOME/melete/home" MELETE_DATA="$HOME/melete/data"
mkdir -p "$MELETE_HOME/runs" "$MELETE_DATA"
echo '{started}'
~/melete/env/bin/python -m melete run job.json
"""


@dataclass(frozen=True)
class Job:
    """What runs there.

    Attributes:
        process: name of the process.
        values: its config as it is there.
        mounts: path there to path here.
    """

    process: str
    values: dict[str, Any]
    mounts: dict[str, str]


def job(process: str, values: Mapping[str, Any], settings: Settings) -> Job:
    """The job with its inputs resolved to what has to be copied.

    Raises:
        MeleteError: a value is wrong, or an input does not exist here.
    """
    cls = config_class(process)
    known = {key: value for key, value in values.items() if key in cls.model_fields}
    config = parse_config(process, known)
    there = {key: value for key, value in known.items() if value != cls.model_fields[key].default}
    mounts: dict[str, str] = {}
    for key, field in cls.model_fields.items():
        for mark in (mark for mark in field.metadata if isinstance(mark, Input)):
            value = getattr(config, key)
            if not value:
                continue
            if mark.what == "dataset":
                mounts |= _datasets(str(value), settings)
            else:
                found = _checkpoint(str(value), mark, settings)
                if found is not None:
                    mounts["~/melete/base"], there[key] = str(found), "base"
    mounts |= _of_scenario(str(getattr(config, "scenario", "")), settings)
    if "device" in cls.model_fields:
        there["device"] = "cuda"
    if "gpu" in cls.model_fields:
        there["gpu"] = "local"
    there.pop("yes", None)
    return Job(process, there, mounts)


def build(cloud: Cloud, work: Job, name: str, workdir: str) -> dict[str, Any]:
    """The SkyPilot task.

    Args:
        cloud: where.
        work: what runs.
        name: of the task and its machine.
        workdir: folder here that holds what `stage` writes.
    """
    resources: dict[str, Any] = {
        "infra": cloud.infra, "accelerators": cloud.accelerators, "disk_size": 100,
    }  # fmt: skip
    if cloud.autostop:
        resources["autostop"] = {"idle_minutes": IDLE_MINUTES, "down": True}
    task: dict[str, Any] = {"name": name, "workdir": workdir, "resources": resources}
    if work.mounts:
        task["file_mounts"] = dict(sorted(work.mounts.items()))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return task | {"setup": SET_UP.format(python=python), "run": RUN.format(started=STARTED)}


def stage(folder: Path, task: Mapping[str, Any], work: Job) -> Path:
    """Writes what the machine gets into a folder, and the task beside it; returns the task's file.

    Raises:
        StorageError: it cannot be written.
    """
    workdir = folder / "workdir"
    shutil.rmtree(workdir, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(Path(melete.__file__).parent, workdir / "app" / "melete", ignore=ignored)
    replace_file(workdir / "requirements.txt", requirements())
    steps = [{"name": work.process.rpartition(".")[2], "process": work.process, "config": work.values}]
    replace_file(workdir / "job.json", json.dumps({"name": task["name"], "processes": steps}, indent=1))
    file = folder / "task.yaml"
    replace_file(file, text(task))
    return file


def text(task: Mapping[str, Any]) -> str:
    """The task as YAML."""

    class Dumper(yaml.SafeDumper):
        """Writes texts of several lines as blocks."""

    def block(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, block)
    return yaml.dump(dict(task), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)


def requirements() -> str:
    """The pinned requirements: the lock file of this tree, else the versions that are installed here."""
    lock = Path(melete.__file__).parents[2] / "requirements.lock"
    if lock.is_file():
        return lock.read_text(encoding="utf-8")
    from melete.agents import docker

    return "\n".join(docker.requirements(("train", "hf", "serve", "agents"))) + "\n"


def _checkpoint(ref: str, mark: Input, settings: Settings) -> Path | None:
    """Folder of the checkpoint or model here; None for a hub id, which is fetched there."""
    from melete.runs import refs

    if mark.what == "model" and (Path(ref) / "config.json").is_file():
        return Path(ref).resolve()
    if mark.what == "model" and ref.count("/") == 1 and not Path(ref).exists():
        return None
    return refs.checkpoint(settings, ref, mark.kinds)


def _datasets(value: str, settings: Settings) -> dict[str, str]:
    """Folders of the datasets of a mixture such as `a:0.7,b`; generated ones have none."""
    mounts = {}
    for part in value.split(","):
        if Path(part.strip()).exists():
            raise ConfigError(
                f"{part.strip()} is a path, which another machine does not have.",
                next_step="Give the data a name: melete data add",
            )
        name = part.strip().partition(":")[0].partition("@")[0]
        for root in filter(None, (settings.datasets, settings.data)):
            if (root / name).is_dir():
                mounts[f"~/melete/data/{name}"] = str((root / name).resolve())
                break
    return mounts


def _of_scenario(name: str, settings: Settings) -> dict[str, str]:
    """A scenario's own file and data, where it has any."""
    if not name:
        return {}
    from melete import find
    from melete.agents import scenario as scenarios

    loaded = scenarios.load(name)
    path = scenarios.files()[name]
    mounts = {}
    if path.parent != find.folder_of(scenarios.PACKAGE):
        mounts[f"{REMOTE_HOME}/scenarios/{path.name}"] = str(path.resolve())
        beside = path.with_suffix("")
        if beside.is_dir():
            mounts[f"{REMOTE_HOME}/scenarios/{beside.name}"] = str(beside.resolve())
    if reason := loaded.unavailable():
        raise ConfigError(f"The scenario {name} cannot be played here, so its data cannot be sent: {reason}")
    for dataset in loaded.datasets:
        mounts |= _datasets(dataset, settings)
    return mounts
