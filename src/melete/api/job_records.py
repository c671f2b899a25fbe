"""What the API says of the queue: jobs, their processes, workers, a text that was checked; the client reads these too.

Imports no web framework and not the queue. Times are seconds since the epoch.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from melete.api.records import LogLine

JobState = Literal["queued", "running", "paused", "succeeded", "failed", "stopped"]
StepState = Literal["waiting", "queued", "running", "succeeded", "failed", "stopped"]
Action = Literal["pause", "stop", "kill", "resume", "retry"]


class JobStepSummary(BaseModel):
    """One process of a job in a list."""

    name: str = Field(examples=["base"])
    process: str = Field(examples=["llm.pretrain"])
    state: StepState
    run: str | None = Field(description="The run that carries it out, once there is one.")


class JobSummary(BaseModel):
    """One job in a list."""

    id: str = Field(examples=["20261120-123405-tiny-a1f3"])
    name: str = Field(examples=["tiny"])
    state: JobState
    shown_state: str = Field(
        description="The state in words, also what it is asked to become: pausing, stopping.",
        examples=["running"],
    )
    wanted: Literal["run", "pause", "stop", "kill"]
    priority: int = Field(description="Higher goes first.")
    created_s: float
    started_s: float | None
    ended_s: float | None
    tries: int = Field(description="How often it was submitted or retried.")
    error: str | None
    done: int = Field(description="How many of its processes have succeeded.")
    steps: list[JobStepSummary]
    waits: str | None = Field(
        description="Why the first process that waits does not run yet, and what to do."
    )
    actions: list[Action] = Field(description="What can be asked of it now: POST /jobs/{id}/ACTION.")


class JobStep(JobStepSummary):
    """One process of a job, as the queue knows it."""

    number: int
    config: dict[str, Any] = Field(description="Values that differ from the process's defaults.")
    after: list[str] = Field(description="Names of the processes that must have succeeded.")
    executor: str = Field(examples=["local"])
    needs: dict[str, Any] = Field(description="Device, slots, resources.")
    retries: int = Field(description="How often it is tried again if it dies or crashes.")
    limit_batches: int | None
    attempt: int = Field(description="How often a worker has taken it.")
    failures: int = Field(description="Failed attempts since the last submit or retry.")
    not_before_s: float | None = Field(description="When it is tried again, where it waits for that.")
    waits: str | None = Field(
        description="Why it does not run yet, and what to do; null if it runs or has ended."
    )
    worker: str | None
    host: str | None
    pid: int | None
    gpus: list[int]
    claimed_s: float | None = Field(description="When a worker took it last.")
    beat_s: float | None = Field(description="Its last sign of life.")
    ended_s: float | None
    error: str | None
    run_gone: bool = Field(description="Whether the folder of its run was deleted.")


class JobDetail(JobSummary):
    """One job."""

    file: str = Field(description="Where its file lay; empty where it was sent as text.")
    cwd: str = Field(description="Folder that relative paths start from.")
    text: str = Field(description="The job file as it was submitted.")
    steps: list[JobStep]  # type: ignore[assignment]  # a list in a record is read only


class JobLogLine(LogLine):
    """One line of a process's output."""

    step: str = Field(description="Name of the process.", examples=["base"])


class JobLogPage(BaseModel):
    """Some lines of what a job's processes said, one process after the other; the shape of a run's log."""

    object: Literal["list"] = "list"
    data: list[JobLogLine]
    next_cursor: str | None = Field(description="Asks for the lines before these; null at the beginning.")
    end: int = Field(description="Ask with after=end for what comes next.")


class FileProblem(BaseModel):
    """One wrong thing in a text."""

    line: int = Field(examples=[6])
    column: int = Field(description="From 1.", examples=[13])
    key: str = Field(
        description="Dotted; empty where the text as a whole is meant.", examples=["config.stps"]
    )
    message: str = Field(examples=["unknown key. Did you mean 'steps'? Known: rate, seed, steps."])


class CheckedStep(BaseModel):
    """One process of a job as it would run."""

    name: str = Field(examples=["base"])
    process: str = Field(examples=["llm.pretrain"])
    config: dict[str, Any] = Field(description="All options, defaults too.")
    given: list[str] = Field(description="The options that the text gives.")
    after: list[str]
    needs: dict[str, Any]
    executor: str
    retries: int
    line: int = Field(description="Where it begins in the text.")
    command: str | None = Field(
        description="What runs this process alone in a terminal; null where it needs the run of another one."
    )


class Checked(BaseModel):
    """What a job file's text would do."""

    ok: bool = Field(description="Whether it can be submitted as it stands.")
    problems: list[FileProblem] = Field(description="What keeps it from that, by line.")
    warnings: list[FileProblem] = Field(
        description="What would fail later as things are now, such as a dataset that is not at hand."
    )
    name: str | None = Field(examples=["tiny"])
    steps: list[CheckedStep] = Field(description="Empty where there are problems.")
    commands: list[str] = Field(
        description="What does the same in a terminal.", examples=[["melete jobs submit tiny.yaml"]]
    )


class FieldProblem(BaseModel):
    """One wrong value of a form."""

    path: str = Field(description="Dotted path of the field.", examples=["lora.rank"])
    message: str


class JobText(BaseModel):
    """A process with values as the text of a job file."""

    ok: bool
    problems: list[FieldProblem]
    text: str = Field(description="A job file (YAML); also where there are problems.")
    command: str | None = Field(
        description="What does the same in a terminal; null where no flag can say a value.",
        examples=["melete llm pretrain --depth 4"],
    )


class WorkedOn(BaseModel):
    """A process that a worker carries out."""

    job: str
    step: str = Field(examples=["base"])
    run: str | None


class Worker(BaseModel):
    """Who carries out processes."""

    id: str = Field(examples=["lab-3-4f1a"])
    host: str
    pid: int
    executors: list[str] = Field(examples=[["local"]])
    gpus: list[int] = Field(description="GPUs that it may use.")
    gpus_taken: list[int] = Field(description="GPUs of its host that a process has.")
    cpu_slots: int
    cpu_slots_taken: int
    started_s: float
    beat_s: float = Field(description="Its last sign of life.")
    beat_age_s: float
    working_on: list[WorkedOn] = Field(description="The processes that it carries out.")


class Example(BaseModel):
    """A job file that ships with Melete, or lies in the folder `examples` of the home."""

    name: str = Field(examples=["first-steps"])
    description: str = Field(description="Its first comment.")
    own: bool = Field(description="Whether it is the user's.")
    processes: list[str] = Field(examples=[["llm.pretrain"]])
    text: str
