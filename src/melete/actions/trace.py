"""The trace of episodes: one JSON line per step, appended at once, with secrets taken out.

A line holds `time_s, step, run, episode, observation, model_output, proposed, verdict, reasons, executed, result,
reward`; those that are not known are left out, and more may be added: `ok` (whether the executed call succeeded),
`rule` (the rule that decided), `confirmed` (whether a person confirmed it) and, in an episode's first line, `facts`
make `stats` and `replay` exact; an environment adds `task` and `split` to the first line of an episode, `solved` and
`criteria` to its last. A line is one write to a file opened for appending, so a killed process loses at most
the line that it was writing; `read` leaves out what is not whole. A run's traces are `<run folder>/traces/*.jsonl`.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from melete.actions.action import Action, from_dict, to_dict
from melete.actions.guard import Guard, GuardSession, Verdict
from melete.actions.ledger import ToolResult, json_line
from melete.errors import ConfigError
from melete.runs.lines import LineFile
from melete.runs.redact import redact

KEYS = (
    "time_s", "step", "run", "episode", "observation", "model_output", "proposed", "verdict", "reasons",
    "executed", "result", "reward",
)  # fmt: skip
EXECUTABLE = (Verdict.ALLOW, Verdict.CLAMP)
_ACTIONS = get_args(Action)


class TraceWriter:
    """Appends steps to a trace file; safe to use from several threads.

    Args:
        path: JSONL file; its folder is made if need be.
        **always: fields of every line, such as `run`.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, path: Path, **always: Any) -> None:
        self.path = path
        self._always = always
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = LineFile(path)

    def write(self, **fields: Any) -> None:
        """Appends one step; actions, verdicts and tool results may be given as they are.

        Raises:
            StorageError: the disk is full; the lines before stay whole.
        """
        given = {**self._always, **fields}
        ordered = {name: given.pop(name) for name in KEYS if name in given}
        row = {name: redact(_plain(value)) for name, value in {**ordered, **given}.items()}
        self._file.append(json_line(row))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The steps of a trace file, in order; a line that is not whole is left out.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        with path.open("rb") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    yield row
    except OSError as error:
        raise ConfigError(f"The trace {path} cannot be read: {error.strerror}.") from error


def files(folder: Path) -> list[Path]:
    """The trace files of a run folder, or of a folder of traces."""
    inside = folder / "traces" if (folder / "traces").is_dir() else folder
    return sorted(inside.glob("*.jsonl"))


@dataclass
class Summary:
    """What stands in traces.

    Attributes:
        steps: lines.
        calls: tool calls proposed, readable or not.
        calls_ok: those that were executed and answered without an error.
        verdicts: steps by verdict.
        refusals: actions refused, asked for or aborted, by the rule that decided (`unknown` in traces without it).
        tools: calls and successful ones by tool.
        rewards: sum of rewards by episode.
    """

    steps: int = 0
    calls: int = 0
    calls_ok: int = 0
    messages: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    tools: dict[str, list[int]] = field(default_factory=dict)
    rewards: dict[str, float] = field(default_factory=dict)


def summarise(steps: Iterable[dict[str, Any]]) -> Summary:
    """Counts the steps of traces."""
    found = Summary()
    for step in steps:
        found.steps += 1
        episode = str(step.get("episode", ""))
        found.rewards[episode] = found.rewards.get(episode, 0.0) + float(step.get("reward") or 0.0)
        proposed = step.get("proposed") or {}
        kind, verdict = proposed.get("type"), str(step.get("verdict") or "none")
        found.verdicts[verdict] += 1
        if verdict in (Verdict.REFUSE, Verdict.ASK, Verdict.ABORT):
            found.refusals[str(step.get("rule") or "unknown")] += 1
        if kind == "message":
            found.messages += 1
        elif kind in ("tool", "malformed"):
            ok = succeeded(step)
            found.calls += 1
            found.calls_ok += ok
            counts = found.tools.setdefault(str(proposed.get("name") or "(malformed)"), [0, 0])
            counts[0] += 1
            counts[1] += ok
    return found


def succeeded(step: dict[str, Any]) -> bool:
    """Whether the step's action was executed and answered without an error."""
    if step.get("executed") is None:
        return False
    if isinstance(step.get("ok"), bool):
        return bool(step["ok"])
    result = step.get("result")
    return bool(result.get("ok", True)) if isinstance(result, dict) else not str(result).startswith("Error:")


@dataclass(frozen=True)
class Difference:
    """A step whose trace and guard do not agree; `problem` says how."""

    episode: str
    step: int
    action: str
    problem: str


def check(steps: Iterable[dict[str, Any]]) -> list[Difference]:
    """Steps whose executed action does not follow from their verdict; a sound trace has none."""
    found: list[Difference] = []
    aborted: set[str] = set()
    for step in steps:
        verdict, executed, proposed = step.get("verdict"), step.get("executed"), step.get("proposed") or {}
        episode = str(step.get("episode", ""))
        problem = ""
        if executed is not None and episode in aborted:
            problem = "executed after the episode was aborted"
        elif executed is not None and verdict not in EXECUTABLE:
            problem = f"executed although the verdict is {verdict or 'missing'}"
        elif executed is None and verdict in EXECUTABLE and proposed.get("type") != "message":
            problem = f"not executed although the verdict is {verdict}"
        elif verdict == Verdict.ALLOW and executed is not None and _differ(executed, proposed):
            problem = "executed another action than was proposed and allowed"
        if verdict == Verdict.ABORT:
            aborted.add(episode)
        if problem:
            found.append(Difference(episode, int(step.get("step", 0)), action_text(proposed), problem))
    return found


def replay(steps: Iterable[dict[str, Any]], guard: Guard) -> list[Difference]:
    """Judges every proposed action again; tells what this guard would have judged differently.

    What was executed then counts as executed now, so that each step is judged in the situation that it really had.
    Times are those of the trace. Redacted values stay redacted, which may change a judgement about them.
    """
    found: list[Difference] = []
    sessions: dict[str, GuardSession] = {}
    for step in steps:
        episode, time_s = str(step.get("episode", "")), float(step.get("time_s") or 0.0)
        if episode not in sessions:
            sessions[episode] = guard.start(step.get("facts"), time_s)
        proposed = step.get("proposed") or {}
        try:
            action = from_dict(proposed)
        except ValueError:
            continue  # a malformed call was never judged
        session = sessions[episode]
        judgement = session.judge(action, time_s)
        if judgement.verdict is Verdict.ASK and step.get("confirmed"):
            session.confirm(action)
            judgement = session.judge(action, time_s)
        if step.get("executed") is not None:
            session.record(from_dict(step["executed"]), succeeded(step), step.get("result"), time_s)
        if judgement.verdict != step.get("verdict"):
            why = " ".join(judgement.reasons)
            problem = f"{step.get('verdict') or 'none'} → {judgement.verdict}{f': {why}' if why else ''}"
            found.append(Difference(episode, int(step.get("step", 0)), action_text(proposed), problem))
    return found


def action_text(proposed: dict[str, Any]) -> str:
    """A traced action in one line, such as `get_order(order_id="O-1")`."""
    kind = proposed.get("type")
    if kind == "tool":
        arguments = proposed.get("arguments") or {}
        shown = ", ".join(
            f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items()
        )
        return f"{proposed.get('name')}({shown})"
    if kind in ("message", "malformed"):
        return f"{'says' if kind == 'message' else 'malformed'}: {proposed.get('text', '')}"
    rest = {name: value for name, value in proposed.items() if name != "type"}
    return f"{kind} {json.dumps(rest, ensure_ascii=False)}"


def _differ(executed: dict[str, Any], proposed: dict[str, Any]) -> bool:
    return {**executed, "id": ""} != {**proposed, "id": ""}


def _plain(value: Any) -> Any:
    """Actions, verdicts and records as JSON values; the value of a tool result is left out, its content is kept."""
    if isinstance(value, _ACTIONS):
        return to_dict(value)
    if isinstance(value, ToolResult):
        return {
            one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.name != "value"
        }
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value
