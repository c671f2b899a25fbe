"""Plain records that cross a process, the disk or the wire, and the states of runs and sessions with their legal moves.

Behaviour lives elsewhere; a record is data and can be written as JSON with `to_json`. Conversations follow the
OpenAI chat format, because every provider, dataset and client speaks it.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from dataclasses import dataclass, field
from typing import Any

from melete.errors import RunStateError, SessionError


class RunState(enum.StrEnum):
    """State of a run (and of a job's process)."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.STOPPED}),
    RunState.RUNNING: frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED, RunState.LOST}),
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset({RunState.QUEUED}),
    RunState.STOPPED: frozenset({RunState.QUEUED}),
    RunState.LOST: frozenset({RunState.QUEUED}),
}
"""Legal moves. `queued` from an ended state is a resume."""


def move(old: RunState, new: RunState, what: str = "run") -> RunState:
    """Returns `new` if the move is legal.

    Raises:
        RunStateError: the table has no such move.
    """
    if new in MOVES[old]:
        return new
    allowed = ", ".join(sorted(MOVES[old])) or "nothing: it has ended for good"
    raise RunStateError(f"A {what} that is {old} cannot become {new}.", allowed=f"From {old}: {allowed}.")


@dataclass
class RunRecord:
    """One execution of one process, as kept in `run.json`. Times are seconds since the epoch."""

    id: str
    process: str
    state: RunState
    created_s: float
    name: str | None = None
    job: str | None = None
    step_name: str | None = None
    started_s: float | None = None
    ended_s: float | None = None
    pid: int | None = None
    pid_started_s: float | None = None
    host: str | None = None
    resumed: int = 0
    limit_batches: int | None = None
    error: str | None = None
    result: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class JobStep:
    """One process of a job, and the run that executed it."""

    name: str
    process: str
    config: dict[str, Any]
    limit_batches: int | None = None
    run: str | None = None
    state: RunState = RunState.QUEUED


@dataclass
class JobRecord:
    """One execution of a job file, as kept in `jobs/<id>/job.json`. Times are seconds since the epoch."""

    id: str
    name: str
    file: str
    state: RunState
    created_s: float
    steps: list[JobStep]
    ended_s: float | None = None
    pid: int | None = None
    pid_started_s: float | None = None
    host: str | None = None
    resumed: int = 0
    error: str | None = None


@dataclass(frozen=True)
class CheckpointRecord:
    """One checkpoint on disk: `files` maps a file name to (bytes, sha256)."""

    schema_version: int
    kind: str
    step: int
    config: dict[str, Any]
    data_position: dict[str, Any]
    metrics: dict[str, float]
    files: dict[str, tuple[int, str]]


@dataclass(frozen=True)
class ToolCall:
    """A call that a model proposes; `arguments` is the JSON object as text, just as the model wrote it."""

    id: str
    name: str
    arguments: str

    def to_openai(self) -> dict[str, Any]:
        """The call in OpenAI's wire form."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }

    @classmethod
    def from_openai(cls, call: dict[str, Any], default_id: str) -> ToolCall:
        """Reads a call in OpenAI's wire form; arguments that are an object instead of its text are written as text.

        Raises:
            ValueError: the function, its name or its arguments are missing or of a wrong type.
        """
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError("a tool call needs 'function' with a 'name'")
        arguments = function.get("arguments", "{}")
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        if not isinstance(arguments, str):
            raise ValueError(
                f"arguments of {function['name']} are {type(arguments).__name__}, not an object as text"
            )
        return cls(str(call.get("id") or default_id), function["name"], arguments)


@dataclass(frozen=True)
class Turn:
    """One message of a conversation. `role` is system, user, assistant or tool."""

    role: str
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    def to_openai(self) -> dict[str, Any]:
        """The message in OpenAI's wire form."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.to_openai() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message

    @classmethod
    def from_openai(cls, message: dict[str, Any]) -> Turn:
        """Reads a message in OpenAI's wire form; text parts of a content list are joined.

        Raises:
            ValueError: a role or a content that the format does not have.
        """
        role = message.get("role")
        if role == "developer":
            role = "system"
        if role not in ("system", "user", "assistant", "tool"):
            raise ValueError(f"role {role!r} is not one of system, user, assistant, tool")
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(part["text"] for part in content if part.get("type") == "text")
        if content is not None and not isinstance(content, str):
            raise ValueError(f"content of a {role} message is {type(content).__name__}, not text")
        calls = tuple(
            ToolCall.from_openai(call, f"call_{i}") for i, call in enumerate(message.get("tool_calls") or ())
        )
        return cls(role, content or "", calls, message.get("tool_call_id"))


@dataclass(frozen=True)
class Conversation:
    """Turns in order, and the tools that the assistant may call (each a JSON-schema function, OpenAI form)."""

    turns: tuple[Turn, ...]
    tools: tuple[dict[str, Any], ...] = ()

    def to_openai(self) -> dict[str, Any]:
        """`{"messages": […], "tools": […]}`: one row of a conversations dataset."""
        row: dict[str, Any] = {"messages": [turn.to_openai() for turn in self.turns]}
        if self.tools:
            row["tools"] = list(self.tools)
        return row

    @classmethod
    def from_openai(cls, row: dict[str, Any]) -> Conversation:
        """Reads one row of a conversations dataset.

        Raises:
            ValueError: `messages` is missing or a message is malformed.
        """
        messages = row.get("messages")
        if not isinstance(messages, list) or not messages:
            raise ValueError("a conversation needs a non-empty list 'messages'")
        tools = tuple(row.get("tools") or ())
        for tool in tools:
            if not isinstance(tool, dict) or not isinstance(tool.get("function"), dict):
                raise ValueError("a tool is {'type': 'function', 'function': {'name': …, 'parameters': …}}")
        return cls(tuple(Turn.from_openai(m) for m in messages), tools)


class SessionState(enum.StrEnum):
    """State of a session: only a live one may send requests."""

    CREATED = "created"
    LIVE = "live"
    FINALISED = "finalised"
    ABORTED = "aborted"
    EXPIRED = "expired"


SESSION_MOVES: dict[SessionState, frozenset[SessionState]] = {
    SessionState.CREATED: frozenset({SessionState.LIVE, SessionState.ABORTED, SessionState.EXPIRED}),
    SessionState.LIVE: frozenset({SessionState.FINALISED, SessionState.ABORTED, SessionState.EXPIRED}),
    SessionState.FINALISED: frozenset(),
    SessionState.ABORTED: frozenset(),
    SessionState.EXPIRED: frozenset(),
}
"""Legal moves of a session; what has ended has ended for good, and another attempt is another session."""


def move_session(old: SessionState, new: SessionState, what: str = "session") -> SessionState:
    """Returns `new` if the move is legal.

    Raises:
        SessionError: the table has no such move.
    """
    if new in SESSION_MOVES[old]:
        return new
    allowed = ", ".join(sorted(SESSION_MOVES[old])) or "nothing: it has ended for good"
    raise SessionError(f"A {what} that is {old} cannot become {new}.", allowed=f"From {old}: {allowed}.")


@dataclass(frozen=True)
class SessionRecord:
    """One attempt at one task by one variant. Times are seconds since the epoch.

    `experiment`, `variant`, `task_card`, `harness_profile` and `provider` are ids of config entities, `name@digest`;
    `kind` is "gateway" (through the proxy) or "rollout" (played by our own agents); `model` is the name asked for.
    """

    id: str
    kind: str
    state: SessionState
    created_s: float
    experiment: str | None = None
    variant: str | None = None
    task_card: str | None = None
    attempt: int = 0
    harness_profile: str | None = None
    provider: str | None = None
    model: str | None = None
    started_s: float | None = None
    ended_s: float | None = None
    expires_s: float | None = None
    first_request_s: float | None = None
    last_request_s: float | None = None
    solved: bool | None = None
    score: float | None = None
    outcome_source: str | None = None
    outcome_note: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    content: bool = False


@dataclass(frozen=True)
class Score:
    """A measured value with its count and 95 % interval, so that a number is never shown without them."""

    name: str
    value: float
    count: int
    low: float | None = None
    high: float | None = None
    note: str = ""


def to_json(record: Any) -> str:
    """One line of JSON for a record."""
    return json.dumps(dataclasses.asdict(record), ensure_ascii=False, separators=(",", ":"))
