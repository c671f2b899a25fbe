"""Deployments: agents that were deployed, their versions and which one is in use; deploy, and go back a version."""

from __future__ import annotations

from pathlib import Path as FolderPath
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from melete.api import episodes, paging
from melete.api.clean import clean
from melete.api.episode_records import EpisodeDetail, EpisodePage
from melete.api.episodes import EpisodeAsked, EpisodeId, StepAsked
from melete.api.model_records import Deployed
from melete.api.records import Deployment, DeploymentVersion
from melete.api.store import PLAIN, Asked, Listed, Store
from melete.errors import ApiError, CheckpointError, DeploymentError, UnknownNameError
from melete.settings import Settings

DeploymentName = Annotated[
    str, Path(max_length=80, pattern=PLAIN, description="An agent's name.", examples=["customer_support"])
]
VersionName = Annotated[
    str, Path(max_length=20, pattern=PLAIN, description="A version, such as 1.2.", examples=["1.2"])
]
REF = r"^[A-Za-z0-9][A-Za-z0-9._-]*(:\d{1,12})?$"
SHOWN = (
    "id", "name", "version", "model", "digest", "source", "scenario", "system_prompt", "guard", "metrics",
    "created_s",
)  # fmt: skip
"""What a version says of itself."""


class DeployBody(BaseModel):
    """What is to be deployed."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(
        max_length=120,
        pattern=REF,
        description="A run (its newest checkpoint), `run:step`, or `echo`.",
        examples=["20261120-123405-train-a1f3:200"],
    )
    name: str = Field(
        "",
        max_length=48,
        pattern=r"^[a-z0-9_-]*$",
        description="Of the agent; the scenario's by default.",
        examples=["customer_support"],
    )
    version: str = Field(
        "", max_length=12, pattern=r"^(\d{1,4}\.\d{1,6})?$", description="The next by default."
    )
    scenario: str = Field(
        "",
        max_length=100,
        pattern=PLAIN,
        description="Whose prompt, tools and guard, where the run practised none.",
    )
    copy_weights: bool = Field(False, description="Copy the weights into the deployment.")


def routes(store: Store) -> APIRouter:
    """A list by name, one of it, its versions; deploying and going back."""
    router, settings = APIRouter(), store.settings

    @router.get("")
    def list_deployments(asked: Annotated[Asked, Query()]) -> Listed[Deployment]:
        """List deployed agents by name."""
        from melete.serve import deployment

        found = [_deployment(name, settings) for name in deployment.names(settings)]
        return paging.page(
            found, lambda one: one.name, of="deployments", limit=asked.limit, cursor=asked.cursor
        )

    @router.get("/{name}")
    def get_deployment(name: DeploymentName) -> Deployment:
        """One deployed agent."""
        return _deployment(_known(name, settings), settings)

    @router.get("/{name}/episodes")
    def list_deployment_episodes(
        name: DeploymentName, asked: Annotated[EpisodeAsked, Query()]
    ) -> EpisodePage:
        """Conversations of a deployed agent as its traces tell them; the phase is the version, such as `v1.2`."""
        return episodes.listed(_traces(name, settings), asked, of=f"deployment {name}")

    @router.get("/{name}/episodes/{episode_id}")
    def get_deployment_episode(
        name: DeploymentName, episode_id: EpisodeId, asked: Annotated[StepAsked, Query()]
    ) -> EpisodeDetail:
        """One conversation of a deployed agent, step by step."""
        return episodes.one(_traces(name, settings), episode_id, asked)

    @router.get("/{name}/versions/{version}")
    def get_deployment_version(name: DeploymentName, version: VersionName) -> DeploymentVersion:
        """One version; whether its weights are intact is asked of the disk."""
        return _version(_known(name, settings), version, settings)

    @router.post("", status_code=201)
    def deploy_model(request: Request, response: Response, body: DeployBody) -> Deployed:
        """Make the next version of an agent and put it into use; a server that has the agent loaded takes it over."""
        from melete.agents import deploy

        options = body.model_dump(exclude={"model"})
        try:
            made = deploy.deploy(body.model, settings, **options)
            loaded = _taken_over(request, made.name, made.version)
        except (DeploymentError, CheckpointError) as error:
            raise ApiError(str(error), 409, "refused") from error
        response.headers["Location"] = f"/api/v1/deployments/{made.name}/versions/{made.version}"
        return _deployed(made.name, settings, loaded)

    @router.post("/{name}/roll-back")
    def roll_back_deployment(request: Request, name: DeploymentName) -> Deployed:
        """Put the version before the one in use into use again."""
        from melete.serve import deployment

        agents = request.app.state.serving.agents()
        loaded = agents is not None and agents.of(_known(name, settings)) is not None
        try:
            if agents is not None and loaded:
                agents.roll_back(name)
            else:
                deployment.roll_back(settings, _known(name, settings))
        except (DeploymentError, CheckpointError) as error:
            raise ApiError(str(error), 409, "refused") from error
        return _deployed(name, settings, loaded)

    return router


def _version(name: str, version: str, settings: Settings) -> DeploymentVersion:
    from melete.serve import deployment

    known = deployment.versions(settings, name)
    if version not in known:
        raise UnknownNameError(f"version of {name}", version, known)
    found = deployment.read(deployment.root(settings) / name / f"v{version}")
    try:
        found.verify()
        intact = True
    except DeploymentError:
        intact = False
    told = {
        **{key: getattr(found, key) for key in SHOWN},
        "active": deployment.active(settings, name) == version,
        "intact": intact,
        "tools": [str(tool.get("function", {}).get("name")) for tool in found.tools],
        "criteria": [dict(one) for one in found.criteria],
    }
    return DeploymentVersion.model_validate(clean(told))


def _taken_over(request: Request, name: str, version: str) -> bool:
    """Loads a version where an older one of the agent is loaded in this server; whether it did."""
    agents = request.app.state.serving.agents()
    if agents is None or agents.of(name) is None:
        return False
    agents.activate(name, version)
    return True


def _deployed(name: str, settings: Settings, loaded: bool) -> Deployed:
    from melete.serve import deployment

    made = deployment.load(settings, name)
    return Deployed(
        id=made.id,
        name=name,
        version=made.version,
        source=made.source,
        previous=deployment.previous(settings, name),
        loaded=loaded,
    )


def _traces(name: str, settings: Settings) -> FolderPath:
    """Where the agent's steps are kept."""
    from melete.serve import deployment

    return deployment.root(settings) / _known(name, settings) / "traces"


def _known(name: str, settings: Settings) -> str:
    """The name, if something is deployed by it.

    Raises:
        UnknownNameError: nothing is.
    """
    from melete.serve import deployment

    known = deployment.names(settings)
    if name not in known:
        raise UnknownNameError("deployed agent", name, known)
    return name


def _deployment(name: str, settings: Settings) -> Deployment:
    from melete.serve import deployment

    versions = deployment.versions(settings, name)
    try:
        active = deployment.active(settings, name)
    except DeploymentError:
        active = versions[-1]
    previous = deployment.previous(settings, name)
    return Deployment(name=name, version=active, previous=previous, versions=versions)
