"""A deployment: model, prompt, tools, guard and success criteria of one version of an agent, in one folder.

    <home>/deployments/<name>/active.json          the version in use and those that were before it
    <home>/deployments/<name>/v1.2/deployment.json  model and digest, tools, criteria, where it comes from
                                   guard.yaml       the guard, with its digest in deployment.json
                                   prompt.md        the system prompt
                                   weights/         a copy of the checkpoint, where it was asked for
    <home>/deployments/<name>/traces/               what the deployed agent proposed and what was allowed

A version is written whole and then renamed into place, and never changes. Weights are named by the SHA-256 of their
`checkpoint.json`, which holds that of every file: a checkpoint that was changed or replaced is refused. The name of
a version is `<name>_v<major>.<minor>`; a name alone is its active version.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from melete.actions.guard import Guard
from melete.errors import DeploymentError
from melete.runs import checkpoints
from melete.runs.folder import replace_file, storage_error
from melete.settings import Settings

SCHEMA_VERSION = 1
ECHO = "echo"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
VERSION = re.compile(r"(\d{1,4})\.(\d{1,6})")
FULL = re.compile(rf"({NAME.pattern})_v({VERSION.pattern})")


@dataclass(frozen=True)
class Deployment:
    """One version of a deployed agent.

    Attributes:
        name: name of the agent, such as `customer_support`.
        version: `<major>.<minor>`.
        model: folder of the checkpoint; relative to the deployment's own folder, or absolute; or `echo`.
        digest: SHA-256 of the checkpoint's `checkpoint.json`; empty for `echo`.
        system_prompt: first turn of every conversation that has none.
        prompt: `name@version` of the file that it was rendered from; empty if it comes from none.
        tools: in OpenAI's form.
        guard: content of its guard file.
        criteria: success criteria, `{"name", "description"}`.
        scenario: what it practised, with its version.
        source: reference of the run and checkpoint that it was made of.
        metrics: figures of the checkpoint, and of its evaluation if it had one.
        created_s: seconds since the epoch.
        folder: where it lies.
    """

    name: str
    version: str
    model: str
    digest: str
    system_prompt: str
    tools: tuple[dict[str, Any], ...]
    guard: dict[str, Any]
    criteria: tuple[dict[str, str], ...] = ()
    prompt: str = ""
    scenario: str = ""
    scenario_version: str = ""
    source: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    created_s: float = 0.0
    folder: Path = Path()

    @property
    def id(self) -> str:
        """`<name>_v<version>`."""
        return f"{self.name}_v{self.version}"

    @property
    def weights(self) -> Path | None:
        """Folder of the checkpoint, None for `echo`."""
        return None if self.model == ECHO else self.folder / self.model

    def verify(self) -> None:
        """Compares the checkpoint with its digest; each file is compared with its own when it is loaded.

        Raises:
            DeploymentError: the checkpoint is not there, or is another one.
        """
        if self.weights is None:
            return
        if digest_of(self.weights) != self.digest:
            raise DeploymentError(
                f"The weights of {self.id} in {self.weights} are not those that were deployed, or are gone.",
                allowed=f"Their digest is {self.digest[:16]}….",
                next_step=f"Deploy again: melete agents deploy {self.source or 'RUN'} --name {self.name}",
            )


def digest_of(checkpoint: Path) -> str:
    """SHA-256 of a checkpoint's `checkpoint.json`, in hex; empty if there is none."""
    try:
        return hashlib.sha256((checkpoint / "checkpoint.json").read_bytes()).hexdigest()
    except OSError:
        return ""


def root(settings: Settings) -> Path:
    """Folder of all deployments."""
    return settings.home / "deployments"


def names(settings: Settings) -> list[str]:
    """Names of the deployed agents."""
    return sorted(p.name for p in root(settings).glob("*") if versions(settings, p.name))


def versions(settings: Settings, name: str) -> list[str]:
    """Versions of an agent, oldest first."""
    found = [p.parent.name[1:] for p in (root(settings) / name).glob("v*/deployment.json")]
    return sorted((v for v in found if VERSION.fullmatch(v)), key=_order)


def active(settings: Settings, name: str) -> str:
    """The version in use.

    Raises:
        DeploymentError: nothing is deployed by that name.
    """
    history = _history(settings, name)
    if not history:
        raise unknown(settings, name)
    return history[-1]


def previous(settings: Settings, name: str) -> str | None:
    """The version that was in use before; None if there was none."""
    history = _history(settings, name)
    return history[-2] if len(history) > 1 else None


def activate(settings: Settings, name: str, version: str) -> None:
    """Makes a version the one in use.

    Raises:
        DeploymentError: there is no such version.
    """
    load(settings, f"{name}_v{version}")
    history = [one for one in _history(settings, name) if one != version]
    _write_history(settings, name, [*history, version])


def roll_back(settings: Settings, name: str) -> str:
    """Makes the version before the one in use the one in use, and returns it.

    Raises:
        DeploymentError: there was none before.
    """
    history = _history(settings, name)
    if not history:
        raise unknown(settings, name)
    if len(history) < 2:
        raise DeploymentError(
            f"{name} has no version before {history[-1]} to go back to.",
            allowed=f"Deployed: {_listed(settings, name)}.",
        )
    _write_history(settings, name, history[:-1])
    return history[-2]


def next_version(settings: Settings, name: str) -> str:
    """The version that the next deployment gets: the newest one's minor and one."""
    known = versions(settings, name)
    if not known:
        return "1.0"
    major, minor = _order(known[-1])
    return f"{major}.{minor + 1}"


def load(settings: Settings, ref: str) -> Deployment:
    """A deployment by `<name>_v<version>`, or by name for the version in use.

    Raises:
        DeploymentError: no such name or version, or one that cannot be read.
    """
    match = FULL.fullmatch(ref)
    name, version = (match[1], match[2]) if match else (ref, "")
    if not NAME.fullmatch(name) or not versions(settings, name):
        raise unknown(settings, ref)
    version = version or active(settings, name)
    if version not in versions(settings, name):
        raise unknown(settings, ref)
    return read(root(settings) / name / f"v{version}")


def read(folder: Path) -> Deployment:
    """Reads a version's folder.

    Raises:
        DeploymentError: it cannot be read, is of a newer schema, or its guard is not the one that was deployed.
    """
    try:
        values = json.loads((folder / "deployment.json").read_text(encoding="utf-8"))
        if values.pop("schema_version") > SCHEMA_VERSION:
            raise DeploymentError(f"{folder} was written by a newer Melete.", next_step="Update Melete.")
        guard_digest = values.pop("guard_digest")
        guard = yaml.safe_load((folder / "guard.yaml").read_text(encoding="utf-8"))
        prompt = (folder / "prompt.md").read_text(encoding="utf-8")
        values["tools"], values["criteria"] = tuple(values["tools"]), tuple(values["criteria"])
        found = Deployment(**values, system_prompt=prompt, guard=guard, folder=folder)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise DeploymentError(
            f"The deployment in {folder} cannot be read ({type(error).__name__}: {error})."
        ) from error
    if Guard.from_dict(guard, str(folder / "guard.yaml")).digest != guard_digest:
        raise DeploymentError(
            f"{folder / 'guard.yaml'} was changed after it was deployed.",
            next_step="A version never changes: deploy a new one with the guard that you want.",
        )
    return found


def write(settings: Settings, deployment: Deployment, copy_weights: bool = False) -> Deployment:
    """Writes a version whole, then renames it into place; it is not yet in use.

    Args:
        settings: where deployments are.
        deployment: its `folder` is not looked at; `model` is the checkpoint's folder.
        copy_weights: whether the checkpoint is copied into the deployment.

    Raises:
        DeploymentError: a bad name or version, a version that exists, or a guard that is none.
        StorageError: it cannot be written; nothing is left behind.
    """
    _check(settings, deployment)
    guard = Guard.from_dict(deployment.guard, f"guard of {deployment.id}")
    folder = root(settings) / deployment.name / f"v{deployment.version}"
    return write_to(folder, deployment, guard, copy_weights)


def write_to(folder: Path, deployment: Deployment, guard: Guard, copy_weights: bool) -> Deployment:
    """Writes a version into a folder that does not exist yet.

    Raises:
        StorageError: it cannot be written; nothing is left behind.
    """
    made = dataclasses.replace(deployment, folder=folder, created_s=deployment.created_s or time.time())
    if copy_weights and made.weights is not None:
        made = dataclasses.replace(made, model="weights")
    values = dataclasses.asdict(made) | {"schema_version": SCHEMA_VERSION, "guard_digest": guard.digest}
    texts = {"prompt.md": values.pop("system_prompt"), "guard.yaml": _yaml(values.pop("guard"))}
    del values["folder"]
    texts["deployment.json"] = json.dumps(values, indent=1, ensure_ascii=False)
    temporary = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        if made.model == "weights" and deployment.weights is not None:
            _copy_checkpoint(deployment.weights, temporary / "weights")
        os.rename(temporary, folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return made


def unknown(settings: Settings, ref: str) -> DeploymentError:
    """What is said about a deployment that does not exist."""
    match = FULL.fullmatch(ref)
    name = match[1] if match else ref
    if match and versions(settings, name):
        return DeploymentError(
            f"{name} has no version {match[2]}.",
            allowed=f"Deployed: {_listed(settings, name)}.",
            next_step=f"See them with: melete agents deploy --list {name}",
        )
    known = ", ".join(f"{one} ({_listed(settings, one)})" for one in names(settings))
    return DeploymentError(
        f"Nothing is deployed by the name {ref!r}.",
        allowed=f"Deployed: {known}." if known else "No agent is deployed yet.",
        next_step="Deploy one with: melete agents deploy RUN",
    )


def _check(settings: Settings, deployment: Deployment) -> None:
    if not NAME.fullmatch(deployment.name):
        raise DeploymentError(
            f"{deployment.name!r} is no name of a deployment.",
            allowed="Small letters, digits, '_' and '-', beginning with a letter or digit; at most 48.",
        )
    if not VERSION.fullmatch(deployment.version):
        raise DeploymentError(f"{deployment.version!r} is no version.", allowed="Such as 1.2.")
    if deployment.version in versions(settings, deployment.name):
        raise DeploymentError(
            f"{deployment.id} exists already, and a version never changes.",
            allowed=f"Deployed: {_listed(settings, deployment.name)}.",
            next_step=f"Leave --version out; it will be {next_version(settings, deployment.name)}.",
        )


def _copy_checkpoint(source: Path, target: Path) -> None:
    """Copies what is needed to serve: all but the optimizer's state."""
    record = checkpoints.read(source)
    target.mkdir()
    for name in ("checkpoint.json", *(name for name in record.files if not name.startswith("state."))):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def _history(settings: Settings, name: str) -> list[str]:
    """Versions in the order in which they came into use, the one in use last."""
    path = root(settings) / name / "active.json"
    try:
        history = json.loads(path.read_text(encoding="utf-8"))["history"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeploymentError(f"{path} cannot be read ({error}).") from error
    known = versions(settings, name)
    return [version for version in history if version in known]


def _write_history(settings: Settings, name: str, history: list[str]) -> None:
    text = json.dumps({"version": history[-1], "history": history}, indent=1)
    replace_file(root(settings) / name / "active.json", text)


def _listed(settings: Settings, name: str) -> str:
    return ", ".join(versions(settings, name))


def _order(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


def _yaml(values: Any) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)
