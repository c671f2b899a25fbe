"""What the API says of trained models: a run that saved checkpoints, with what it is made of and where it is in use.

Imports no web framework. Times are seconds since the epoch.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from melete.api.records import Lineage
from melete.records import RunState


class ModelCheckpoint(BaseModel):
    """One checkpoint of a model."""

    id: str = Field(
        description="run:step, which names it everywhere.", examples=["20261120-1234-sft-a1f3:100"]
    )
    step: int = Field(examples=[100])
    saved_s: float
    bytes: int = Field(description="Of all its files.")
    serve_bytes: int = Field(description="Without the optimizer's state: what a download has.")
    metrics: dict[str, Any] = Field(description="Figures known when it was written.")
    figures: dict[str, float] = Field(
        description="Last values of the run's validation figures at its step; only where one model is asked for."
    )


class DeployedAs(BaseModel):
    """A deployed version that was made of a model."""

    id: str = Field(examples=["customer_support_v1.2"])
    name: str
    version: str
    checkpoint: str = Field(description="run:step.")
    active: bool = Field(description="Whether it is the version in use.")


class Model(BaseModel):
    """One trained model: a run of this home that saved checkpoints."""

    id: str = Field(description="Its run's id.", examples=["20261120-123405-sft-a1f3"])
    name: str | None = Field(description="What its run was called, or its name in its job.")
    process: str = Field(examples=["llm.sft"])
    state: RunState
    kind: str = Field(description="What was saved.", examples=["llm"])
    created_s: float
    checkpoints: int = Field(description="How many there are.")
    newest: ModelCheckpoint
    made_of: list[str] = Field(
        description="kind:name of the data and checkpoints that its run took.",
        examples=[["dataset:toolcalls"]],
    )
    deployments: list[DeployedAs]
    served_as: list[str] = Field(
        description="Ids in /v1/models under which this server has it loaded.", examples=[["chat"]]
    )


class ModelDetail(Model):
    """One trained model, with all its checkpoints and its way from the data to deployment."""

    all_checkpoints: list[ModelCheckpoint] = Field(description="Newest first; 200 at most.")
    best: ModelCheckpoint | None = Field(
        description="By `best_by`; null where no validation figure is known."
    )
    best_by: str | None = Field(description="The figure that decided.", examples=["val_loss"])
    lineage: Lineage


class Deployed(BaseModel):
    """What came of deploying, or of going back."""

    id: str = Field(examples=["customer_support_v1.2"])
    name: str
    version: str
    source: str = Field(description="Run and checkpoint that it was made of.")
    previous: str | None = Field(description="The version before, which a roll-back returns to.")
    loaded: bool = Field(description="Whether this server has it loaded now.")
