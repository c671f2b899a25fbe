"""Puts what practice made behind a name: model, prompt, tools, guard and success criteria, as one version.

    made = deploy("my-practice", name="customer_support")      # customer_support_v1.0, then v1.1, …
    activate_at("http://127.0.0.1:8675", made.name)            # loads it into the running server

Prompt, tools, guard and criteria are those of the scenario as it is now; the version keeps them as files, so that a
scenario may change while what was deployed does not. Weights are named by their digest and stay where they are, unless
they are copied.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from melete.agents import scenario as scenarios
from melete.errors import ConfigError, DeploymentError, ServerError
from melete.records import CheckpointRecord
from melete.runs import checkpoints, refs
from melete.serve import deployment
from melete.serve.deployment import Deployment
from melete.settings import Settings


def deploy(
    ref: str,
    settings: Settings,
    *,
    name: str = "",
    version: str = "",
    scenario: str = "",
    copy_weights: bool = False,
) -> Deployment:
    """Makes the next version of an agent and puts it into use.

    Args:
        ref: run of practice (id, beginning, name, `id:step`, `latest`), checkpoint folder, or `echo`.
        settings: where runs and deployments are.
        name: of the agent; empty takes the scenario's.
        version: `<major>.<minor>`; empty takes the next minor one.
        scenario: whose prompt, tools, guard and criteria; empty takes the one that the run practised.
        copy_weights: whether the checkpoint is copied into the deployment.

    Raises:
        UnknownNameError: no such run.
        ScenarioNotFoundError: no such scenario.
        ConfigError: the run practised no scenario, and none was named.
        CheckpointError: the run has no checkpoint of a language model, or a corrupt one.
        DeploymentError: a bad name or version, or one that exists.
        StorageError: it cannot be written; nothing is left behind.
    """
    folder = None if ref == deployment.ECHO else refs.checkpoint(settings, ref, ("llm",))
    record = None if folder is None else _whole(folder)
    played = scenarios.load(scenario or _practised(ref, folder, record))
    chosen = name or played.name
    made = deployment.write(
        settings,
        Deployment(
            name=chosen,
            version=version or deployment.next_version(settings, chosen),
            model=str(folder) if folder is not None else deployment.ECHO,
            digest=deployment.digest_of(folder) if folder is not None else "",
            system_prompt=played.system_prompt,
            tools=tuple(played.toolset.schemas),
            guard=played.guard.to_dict(),
            criteria=tuple(
                {"name": criterion.name, "description": criterion.description}
                for criterion in played.success_criteria()
            ),
            prompt=played.prompt_id,
            scenario=played.name,
            scenario_version=played.version,
            source=_source(settings, folder),
            metrics=_metrics(folder, record),
        ),
        copy_weights,
    )
    deployment.activate(settings, made.name, made.version)
    return made


def activate_at(
    url: str, name: str, version: str | None = None, token: str | None = None, timeout_s: float = 60.0
) -> dict[str, Any]:
    """Loads a deployed agent into a running server; what the server says of it.

    Raises:
        ServerError: no server answers there, or it is none of ours.
        DeploymentError: the server refused.
    """
    return _post(url, "/v1/agents", {"name": name, "version": version}, token, timeout_s)


def roll_back_at(url: str, name: str, token: str | None = None, timeout_s: float = 60.0) -> dict[str, Any]:
    """Lets a running server go back to the version before; see `activate_at`."""
    return _post(url, f"/v1/agents/{name}/rollback", {}, token, timeout_s)


def _post(url: str, path: str, body: dict[str, Any], token: str | None, timeout_s: float) -> dict[str, Any]:
    # The standard library alone: a command that talks to its own machine should start in a blink.
    import urllib.error
    import urllib.request

    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    address = url.rstrip("/").removesuffix("/v1") + path
    try:
        request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        raise _refused(url, error.code, error.read()) from error
    except (OSError, ValueError) as error:
        raise ServerError(
            f"No server answers at {url} ({error}).",
            next_step=f"Start one with: melete serve --agent {body.get('name', 'NAME')}",
        ) from error


def _refused(url: str, status: int, data: bytes) -> ServerError | DeploymentError:
    try:
        message = str(json.loads(data)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"{url} answered {status}."
    if status == 401:
        return ServerError(message, next_step="Set MELETE_TOKEN to the server's token.")
    if status in (404, 405) and "/v1/agents" in message:
        return ServerError(
            f"The server at {url} does not offer agents.",
            next_step="Start one that does with: melete serve --agent NAME",
        )
    return DeploymentError(message)


def _whole(folder: Path) -> CheckpointRecord:
    """The checkpoint's record, after each file was compared with its checksum."""
    record = checkpoints.read(folder)
    for name in record.files:
        if not name.startswith("state."):
            checkpoints.read_file(folder, name)
    return record


def _practised(ref: str, folder: Path | None, record: CheckpointRecord | None) -> str:
    known = str(record.config.get("scenario") or "") if record is not None else ""
    file = folder.parent.parent / "config.yaml" if folder is not None else None
    if not known and file is not None and file.is_file():
        known = str((yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("scenario") or "")
    if not known:
        raise ConfigError(
            f"{ref} practised no scenario, so its prompt, tools and guard are not known.",
            allowed=f"Scenarios: {', '.join(scenarios.names())}.",
            next_step="Name one: --scenario NAME",
        )
    return known


def _source(settings: Settings, folder: Path | None) -> str:
    """Reference of the checkpoint: `run:step` for a run of this home, else its folder's name."""
    if folder is None:
        return deployment.ECHO
    run, step = folder.parent.parent, folder.name.removeprefix("step_")
    ours = run.parent == settings.runs and step.isdecimal()
    return f"{run.name}:{int(step)}" if ours else str(folder)


def _metrics(folder: Path | None, record: CheckpointRecord | None) -> dict[str, Any]:
    """Figures known of the checkpoint; those of the run's result if it ended with this one."""
    found: dict[str, Any] = dict(record.metrics) if record is not None else {}
    file = folder.parent.parent / "run.json" if folder is not None else None
    if file is not None and file.is_file() and checkpoints.latest(file.parent / "checkpoints") == folder:
        result = json.loads(file.read_text(encoding="utf-8")).get("result")
        found |= {"result": result} if result else {}
    return found
