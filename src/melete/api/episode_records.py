"""What the API says of episodes and of what practice proved: the records of its answers, which the client reads too."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from melete.records import RunState


class EpisodeSummary(BaseModel):
    """One policy at one task, once, as its trace tells it."""

    id: str = Field(description="Trace file and place of its first line.", examples=["after-held_out:0"])
    name: str = Field(description="What its run called it.", examples=["held_out-0"])
    phase: str = Field(
        description="before, after or now (an exam), practice, or the name of its trace file.",
        examples=["after"],
    )
    decoding: str = Field(description="free, greedy or schema.", examples=["free"])
    step: int | None = Field(description="Step of practice that asked for it; null where none is told.")
    task: str | None = Field(examples=["held_out-0"])
    split: str | None = Field(examples=["held_out"])
    request: str = Field(description="Beginning of what it was told first.")
    begun_s: float | None
    ended_s: float | None = Field(description="Time of its last step so far.")
    steps: int
    messages: int
    calls: int = Field(description="Tool calls proposed, readable or not.")
    calls_ok: int = Field(description="Those that were executed and answered without an error.")
    stopped: int = Field(description="Actions that the guard refused, asked about or aborted on.")
    clamped: int
    reward: float
    solved: bool | None = Field(description="Null where the trace does not say how it ended.")


class PhaseCount(BaseModel):
    """How many episodes of a phase there are."""

    phase: str
    episodes: int
    ended: int = Field(description="Those whose end is known.")
    solved: int
    calls: int
    calls_ok: int


class EpisodePage(BaseModel):
    """Some episodes, newest first."""

    object: Literal["list"] = "list"
    data: list[EpisodeSummary]
    next_cursor: str | None
    complete: bool = Field(
        description="Whether all lines were read. If not, ask again at once: each answer reads on for a while."
    )
    phases: list[PhaseCount] = Field(
        description="Of all episodes that were read so far, whatever was asked for."
    )


class EpisodeStep(BaseModel):
    """One step: what was seen, proposed, judged, done and answered. Texts and objects are cut where they are long."""

    index: int = Field(description="Its place in the episode, from 0.")
    step: int | None = Field(description="As the trace numbers it.")
    time_s: float | None
    bytes: int = Field(description="Of its line in the trace.")
    cut: bool = Field(description="Whether something of it was too long and is shown in part.")
    observation: Any = Field(
        description="What the policy saw: a text, or an object such as {image: path of a file}."
    )
    model_output: str
    proposed: dict[str, Any] | None
    proposed_text: str = Field(description="The proposed action in one line.")
    verdict: str = Field(
        description="allow, clamp, refuse, ask or abort; empty for what could not be judged."
    )
    reasons: list[str]
    rule: str
    confirmed: bool
    executed: dict[str, Any] | None
    executed_text: str
    result: Any
    ok: bool = Field(description="Whether it was executed and answered without an error.")
    reward: float
    total_reward: float = Field(description="Of the episode up to and with this step.")


class EpisodeDetail(EpisodeSummary):
    """One episode with its steps."""

    criteria: dict[str, bool] = Field(description="What had to be true at the end, and whether it was.")
    data: list[EpisodeStep]
    next_cursor: str | None = Field(description="Asks for the steps after these.")
    complete: bool


class Rate(BaseModel):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float
    count: int = Field(description="Trials.")


class ProofRow(BaseModel):
    """What was measured on the requests of one split."""

    phase: str = Field(description="before, after or now.")
    split: str
    decoding: str
    tasks: int
    success: Rate
    calls: int
    calls_ok: int
    reliability: Rate
    policies_broken: int | None
    failed: int | None = Field(description="Episodes that ended by an error or a timeout.")
    tokens_per_solved: float | None
    calls_per_task: float | None


class ProofDifference(BaseModel):
    """Task success after practice less that before, on the same requests."""

    split: str
    before: float | None
    after: float | None
    difference: float | None
    low: float | None
    high: float | None
    count: int
    p_value: float | None
    shown: bool = Field(description="Whether a difference is shown at 95 %.")
    sentence: str


class ToolProof(BaseModel):
    """How reliable the calls of one tool were in an exam, counted from its traces."""

    tool: str
    phase: str
    split: str
    decoding: str
    calls: int
    calls_ok: int
    reliability: Rate


class Proof(BaseModel):
    """Before and after practice, or an evaluation alone."""

    run: str
    scenario: str | None
    prompt: str | None
    practised_s: float | None
    rows: list[ProofRow]
    differences: list[ProofDifference]
    tools: list[ToolProof] = Field(description="Empty for runs whose exams left no traces.")
    complete: bool = Field(description="Whether all traces were counted; if not, ask again at once.")


class PracticeSummary(BaseModel):
    """A run that practised, evaluated or demonstrated a scenario."""

    id: str
    process: str = Field(examples=["agents.train"])
    state: RunState
    name: str | None
    created_s: float
    ended_s: float | None
    scenario: str | None
    base: str | None = Field(description="The model that it started from or evaluated.")
    framework: str | None
    rows: list[ProofRow] = Field(description="What it measured, as far as it has.")
    differences: list[ProofDifference]
