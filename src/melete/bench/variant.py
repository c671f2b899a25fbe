"""A variant: one harness with one model of one provider; what an experiment compares.

# variants/after.yaml
harness_profile: melete_agent
provider: local
model: after
parameters: {temperature: 0}
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Variant(BaseModel):
    """One thing to measure."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field("", description="The file's name, filled in by the reader.")
    description: str = Field("", description="One sentence for people.")
    harness_profile: str = Field(min_length=1, description="Name of a harness profile.")
    provider: str = Field(min_length=1, description="Name of a provider.")
    model: str = Field(min_length=1, description="Name of one of the provider's models.")
    parameters: dict[str, JsonValue] = Field(
        {},
        description="What the harness is told besides, such as temperature; see {parameters} of its profile.",
    )
