"""An experiment: which variants play which task cards how often, within which limits, and what is kept of it.

    # experiments/support.yaml
    variants: [before, after]
    baseline: before
    task_cards: [support]
    attempts: 2
    limits: {timeout_s: 120, max_requests: 40}

Prompts and answers are not kept. `content: {store: true}` keeps them for this experiment, redacted, for a time.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Content(BaseModel):
    """What is kept of prompts and answers; nothing by default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    store: bool = Field(default=False, description="Whether prompts and answers are kept.")
    redact: bool = Field(default=True, description="Whether secrets in them are blacked out first.")
    retention_days: float = Field(
        default=14.0, gt=0, le=3650, description="Days after which they are deleted."
    )

    @model_validator(mode="after")
    def _always_redacted(self) -> Content:
        if self.store and not self.redact:
            raise ValueError("content is never kept without redaction: leave redact out, or write true.")
        return self


class Limits(BaseModel):
    """What one session may use up."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    timeout_s: float | None = Field(
        default=None, gt=0, le=7 * 86400, description="Seconds that a session may take."
    )
    max_requests: int | None = Field(default=None, ge=1, description="Requests that a session may send.")
    budget_usd: float | None = Field(default=None, gt=0, description="USD that a session may cost.")


class Experiment(BaseModel):
    """Variants, task cards and how often each meets each."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field("", description="The file's name, filled in by the reader.")
    description: str = Field("", description="One sentence for people.")
    variants: list[str] = Field(min_length=1, description="Names of variants.")
    baseline: str | None = Field(
        None, description="Variant that the others are compared with; the first by default."
    )
    task_cards: list[str] = Field(
        min_length=1, description="Names of task cards; a set stands for all its cards."
    )
    attempts: int = Field(1, ge=1, le=1000, description="How often a variant plays each card.")
    content: Content = Field(default_factory=Content, description="What is kept of prompts and answers.")
    limits: Limits = Field(default_factory=Limits, description="What one session may use up.")

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        for key in ("variants", "task_cards"):
            names = getattr(self, key)
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{key} names {twice!r} twice.")
        if self.baseline is not None and self.baseline not in self.variants:
            raise ValueError(
                f"baseline {self.baseline!r} is none of the variants: {', '.join(self.variants)}."
            )
        return self

    @property
    def compared_with(self) -> str:
        """The variant that the others are compared with."""
        return self.baseline or self.variants[0]
