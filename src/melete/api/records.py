"""What the API says of runs and of what they need and leave: the records of its answers, which the client reads too.

Imports no web framework. Times are seconds since the epoch unless a name ends in another unit.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from melete.records import RunState


class RunSummary(BaseModel):
    """One run in a list."""

    id: str = Field(examples=["20261120-123405-pretrain-a1f3"])
    process: str = Field(examples=["llm.pretrain"])
    state: RunState
    name: str | None = Field(description="What it was called, or its name in its job.")
    job: str | None
    created_s: float
    ended_s: float | None
    step: int | None = Field(description="The newest that the index knows.")
    last: dict[str, Any] = Field(description="Last value of each figure that the index knows.")
    error: str | None
    location: str = Field(description="host:home folder.")
    folder: Literal["here", "gone", "elsewhere"] = Field(
        description="Whether its folder is in this home; `gone`: it was deleted or moved, and only this is left."
    )
    note: str = Field("", description="First line of its note; empty where there is none.")


class Derived(BaseModel):
    """A value that follows from the config, and why."""

    name: str
    value: str
    reason: str


class Progress(BaseModel):
    """How far a running run is, in the steps of the loop that it walks now."""

    what: str = Field(examples=["steps"])
    done: int
    total: int
    left_s: float | None = Field(description="Estimate, from the speed so far.")


class RunDetail(BaseModel):
    """All that its folder says of one run, except for what has a path of its own."""

    id: str = Field(examples=["20261120-123405-pretrain-a1f3"])
    process: str = Field(examples=["llm.pretrain"])
    state: RunState
    name: str | None
    job: str | None
    step_name: str | None = Field(description="Its name in its job.")
    created_s: float
    started_s: float | None
    ended_s: float | None
    host: str | None
    pid: int | None
    resumed: int = Field(description="How often it was continued.")
    limit_batches: int | None
    error: str | None
    folder: str
    config: dict[str, Any] | None = Field(description="Resolved options; null where they cannot be read.")
    derived: list[Derived]
    result: dict[str, Any]
    seconds: dict[str, float] = Field(description="Where the time went.")
    stopping: bool = Field(description="It was asked to save a checkpoint and to end, and has not ended yet.")
    progress: Progress | None = Field(description="Of a run that is running; null where it does not say.")
    last: dict[str, Any] = Field(description="Last value of each figure, from the end of the metrics.")
    provenance: dict[str, Any] | None = Field(
        description="Commit, changes, versions, machine, data hashes, seed."
    )
    note: str = Field(description="Text of `note.md` in its folder; empty where there is none.")


class Note(BaseModel):
    """What people wrote about a run."""

    run: str = Field(examples=["20261120-123405-pretrain-a1f3"])
    text: str = Field(description="Markdown; empty where there is none.", examples=["Diverged at 300."])
    revision: str = Field(
        description="Digest of the text: send it as `If-Match` to write over just this one."
    )


class StopAsked(BaseModel):
    """A run that was asked to end."""

    run: str = Field(examples=["20261120-123405-pretrain-a1f3"])
    state: Literal["stopping"]


class Curve(BaseModel):
    """One figure of a run. Numbers that are not finite are counted, not shown."""

    key: str = Field(examples=["loss"])
    count: int = Field(description="Values in all that was read.")
    not_finite: int = Field(description="How many of them are NaN or infinite.")
    minimum: float | None
    maximum: float | None
    last: float | None = Field(description="Null where it is not finite.")
    last_step: float | None
    steps: list[float] = Field(description="Of the points, where the figure was asked for.")
    times_s: list[float | None]
    values: list[float]
    gaps: list[float] = Field(
        [], description="Steps whose value is not finite, the newest hundred; live increments leave them out."
    )


class Curves(BaseModel):
    """Figures of a run."""

    run: str = Field(examples=["20261120-123405-pretrain-a1f3"])
    complete: bool = Field(
        description="Whether all lines were read. If not, ask again at once: each answer reads on for a while."
    )
    read_bytes: int
    total_bytes: int
    figures: list[Curve] = Field(description="Those asked for with their points, or all without any.")


class LogLine(BaseModel):
    """One line of a log."""

    offset: int = Field(description="Where it begins, in bytes.", examples=[0])
    text: str


class LogPage(BaseModel):
    """Some lines of a log, oldest first."""

    object: Literal["list"] = "list"
    data: list[LogLine]
    next_cursor: str | None = Field(description="Asks for the lines before these; null at the beginning.")
    end: int = Field(description="Ask with after=end for what comes next.")


class Sample(BaseModel):
    """What a run showed of itself at one step."""

    step: int = Field(examples=[100])
    name: str = Field(examples=["text"])
    file: str = Field(description="Its path below /runs/{id}/files/.")
    bytes: int
    media_type: str
    text: str | None = Field(description="Where it is text: its beginning.")


class RunFile(BaseModel):
    """A file of a run's folder."""

    path: str = Field(examples=["config.yaml"])
    bytes: int
    modified_s: float
    media_type: str


class CheckpointFile(BaseModel):
    """One file of a checkpoint."""

    name: str = Field(examples=["model.safetensors"])
    bytes: int
    sha256: str


class Checkpoint(BaseModel):
    """One checkpoint of a run of this home."""

    id: str = Field(
        description="run:step, which names it everywhere.", examples=["20261120-1234-pretrain-a1f3:100"]
    )
    run: str
    step: int
    kind: str = Field(examples=["llm"])
    bytes: int
    saved_s: float
    metrics: dict[str, Any] = Field(description="Figures known when it was written.")
    files: list[CheckpointFile]
    config: dict[str, Any] = Field(description="What the model is built from.")


class LineageNode(BaseModel):
    """A thing that something was made of, or that was made."""

    id: str = Field(description="kind:name.", examples=["dataset:stdlib"])
    kind: Literal["dataset", "run", "checkpoint", "model", "deployment"]
    name: str
    label: str = Field(description="What it is, in a few words.")
    missing: bool = Field(False, description="It is referred to and is not there any more.")


class LineageEdge(BaseModel):
    """One thing went into another."""

    source: str
    target: str


class Lineage(BaseModel):
    """From data to deployment: what a run was made of, and what was made of it."""

    run: str = Field(examples=["20261120-123405-pretrain-a1f3"])
    nodes: list[LineageNode]
    edges: list[LineageEdge]


class Process(BaseModel):
    """A kind of run that can be started."""

    name: str = Field(examples=["llm.pretrain"])
    system: str = Field(examples=["llm"])
    description: str
    command: str = Field(description="What starts it in a terminal.")


class ProcessDetail(Process):
    """A process with what a form needs."""

    text: str = Field(description="All that its file says of itself.")
    options: dict[str, Any] = Field(description="JSON schema of its config.")
    defaults: dict[str, Any] = Field(
        description="Value of each option that has one; the schema lacks computed ones."
    )
    example: dict[str, Any] = Field(description="A config that finishes in seconds.")
    inputs: dict[str, str] = Field(description="Options that name a checkpoint, a model or a dataset.")


class DatasetSummary(BaseModel):
    """One dataset that is known here."""

    name: str = Field(examples=["stdlib"])
    version: str
    kind: str = Field(examples=["text"])
    description: str
    licence: str
    bytes: int
    origin: Literal["own", "generated", "public"]
    at_hand: bool = Field(description="Whether it can be read on this machine.")


class DatasetSource(BaseModel):
    """A public place where data was taken from."""

    repository: str
    path: str
    commit: str
    date: str
    note: str


class DatasetDetail(DatasetSummary):
    """One dataset: what its card says, without looking into its files."""

    licence_notes: str
    obligations: list[str] = Field(description="What the licence asks of who uses the data.")
    sources: list[DatasetSource]
    how_to_get: str
    changes: str
    known_issues: list[str]
    use: str
    splits: list[str] = Field(description="Empty where it is not at hand.")
    fingerprint: str = Field(description="sha256 that identifies its content.")
    images: int = Field(description="Images that it holds: GET /datasets/{id}/images.")
    episodes: int = Field(description="Episodes that it holds: GET /datasets/{id}/episodes.")


class DatasetImage(BaseModel):
    """One image of a dataset."""

    index: int = Field(examples=[0])
    image: str = Field(
        description="Its path below /api/v1.", examples=["/datasets/image_noto_emoji/images/0"]
    )
    caption: str | None
    row: dict[str, Any] | None = Field(description="All that is said of it.")


class DatasetEpisode(BaseModel):
    """One episode of a dataset."""

    index: int = Field(examples=[0])
    label: str | None = Field(description="What it is about, where the set says so.")
    steps: int
    first: int = Field(description="Number of its first frame: GET /datasets/{id}/images/{number}.")
    strip: str = Field(
        description="Some frames side by side, as PNG: a path below /api/v1.",
        examples=["/datasets/robot_pusht/episodes/0/strip"],
    )


class EpisodeFigure(BaseModel):
    """One number of each step."""

    key: str = Field(examples=["action.0"])
    values: list[float | None]


class DatasetEpisodeDetail(DatasetEpisode):
    """One episode with what was observed and done."""

    every: int = Field(description="The figures have each n-th step.")
    figures: list[EpisodeFigure] = Field(description="24 at most.")


class DatasetCard(BaseModel):
    """The data card."""

    name: str = Field(examples=["stdlib"])
    markdown: str
    complete: bool = Field(
        description="Whether lengths, counts and samples are in it; if not, ask again: they are being collected."
    )


class DatasetRow(BaseModel):
    """One item of a split."""

    index: int = Field(description="Its place in the split.", examples=[0])
    text: str | None = Field(description="Where the set is text: the document, or its beginning.")
    row: dict[str, Any] | None = Field(
        description="Where it is not: the row, or the conversation, as an object."
    )


class ScenarioSummary(BaseModel):
    """A task family for agents."""

    name: str = Field(examples=["customer_support"])
    description: str
    own: bool = Field(description="Whether its file is the user's.")


class NamedText(BaseModel):
    """A name and what it means."""

    name: str
    description: str


class ScenarioDetail(ScenarioSummary):
    """One scenario: its terms."""

    version: str
    splits: list[str]
    reward_range: tuple[float, float]
    max_steps: int
    system_prompt: str
    tools: list[dict[str, Any]] = Field(description="In OpenAI's form.")
    criteria: list[NamedText]
    guard: dict[str, Any] = Field(
        description="What judges every call before it is executed; empty if not playable."
    )
    datasets: list[str]
    unavailable: str | None = Field(description="Why it cannot be played here; null if it can.")


class ScenarioTask(BaseModel):
    """One thing to do."""

    id: str = Field(examples=["train-0-0"])
    index: int
    split: str
    request: str = Field(description="What the person says first.")
    goal: dict[str, Any]


class Deployment(BaseModel):
    """An agent that was deployed."""

    name: str = Field(examples=["customer_support"])
    version: str = Field(description="The one in use.", examples=["1.2"])
    previous: str | None = Field(description="The one before it, which a roll-back returns to.")
    versions: list[str] = Field(description="Oldest first.")


class DeploymentVersion(BaseModel):
    """One version of a deployed agent; it never changes."""

    id: str = Field(examples=["customer_support_v1.2"])
    name: str
    version: str
    active: bool
    created_s: float
    model: str
    digest: str = Field(description="SHA-256 of the checkpoint's checkpoint.json; empty for echo.")
    intact: bool = Field(description="Whether the weights are there and those that were deployed.")
    source: str = Field(description="Run and checkpoint that it was made of.")
    scenario: str
    system_prompt: str
    tools: list[str]
    guard: dict[str, Any]
    criteria: list[dict[str, str]]
    metrics: dict[str, Any]


class Gpu(BaseModel):
    """One GPU."""

    index: int
    name: str
    driver: str
    memory_bytes: int
    memory_used_bytes: int
    busy_percent: float | None


class Memory(BaseModel):
    """Bytes of memory or of a disk."""

    total_bytes: int
    free_bytes: int


class Status(BaseModel):
    """What runs now, and on what."""

    now_s: float
    host: str
    home: str
    database: Literal["sqlite", "postgresql"]
    running: list[RunSummary] = Field(
        description="Runs of this home whose process lives, newest first; 50 at most."
    )
    latest: list[RunSummary] = Field(description="The newest runs of this home.")
    jobs: dict[str, int] = Field(description="Jobs of this home by state.", examples=[{"queued": 2}])
    cpu_count: int
    cpu_percent: float = Field(description="Of all CPUs, over the last second or more.")
    load: list[float] = Field(description="Mean length of the line for the CPUs over 1, 5 and 15 minutes.")
    memory: Memory
    disk: Memory = Field(description="Of the home folder.")
    gpus: list[Gpu] | None = Field(description="Null until the driver has answered.")
    versions: dict[str, str]
