"""Deployments: agents that were deployed, their versions and which one is in use."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from melete.api import paging
from melete.api.clean import clean
from melete.api.records import Deployment, DeploymentVersion
from melete.api.store import PLAIN, Asked, Listed, Store
from melete.errors import DeploymentError, UnknownNameError
from melete.settings import Settings

DeploymentName = Annotated[
    str, Path(max_length=80, pattern=PLAIN, description="An agent's name.", examples=["customer_support"])
]
VersionName = Annotated[
    str, Path(max_length=20, pattern=PLAIN, description="A version, such as 1.2.", examples=["1.2"])
]


def routes(store: Store) -> APIRouter:
    """A list by name, one of it, and its versions."""
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

    @router.get("/{name}/versions/{version}")
    def get_deployment_version(name: DeploymentName, version: VersionName) -> DeploymentVersion:
        """One version; whether its weights are intact is asked of the disk."""
        from melete.serve import deployment

        known = deployment.versions(settings, _known(name, settings))
        if version not in known:
            raise UnknownNameError(f"version of {name}", version, known)
        found = deployment.read(deployment.root(settings) / name / f"v{version}")
        try:
            found.verify()
            intact = True
        except DeploymentError:
            intact = False
        told = {
            **{key: getattr(found, key) for key in ("id", "name", "version", "model", "digest", "source")},
            **{
                key: getattr(found, key)
                for key in ("scenario", "system_prompt", "guard", "metrics", "created_s")
            },
            "active": deployment.active(settings, name) == version,
            "intact": intact,
            "tools": [str(tool.get("function", {}).get("name")) for tool in found.tools],
            "criteria": [dict(one) for one in found.criteria],
        }
        return DeploymentVersion.model_validate(clean(told))

    return router


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
