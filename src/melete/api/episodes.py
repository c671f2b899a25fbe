"""Episodes as answers: pages of them, and one with its steps, from the traces of any folder.

What models and tools wrote is cut to what a page can show, and says so.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Path as InPath
from pydantic import Field

from melete.actions.trace import action_text, succeeded
from melete.api import paging, traces
from melete.api.clean import clean, text
from melete.api.episode_records import EpisodeDetail, EpisodePage, EpisodeStep, EpisodeSummary, PhaseCount
from melete.api.store import Asked, Text
from melete.errors import UnknownNameError

EpisodeId = Annotated[
    str,
    InPath(
        max_length=120,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*:\d{1,15}$",
        description="An episode's id.",
        examples=["after-held_out:0"],
    ),
]
PHASES = ("before", "practice", "after", "now")
"""In the order in which they happen."""
MOST_STEPS = 200
READ_BYTES = 16 << 20
"""Of a trace for one answer; at least one step."""
SHOWN_CHARACTERS = 20_000
"""Of one text or object of a step."""
LINE_CHARACTERS = 500
MOST_REASONS = 20
SHOWN = ("observation", "model_output", "proposed", "executed", "result")
CONDITIONS = {
    "phase": "phase = :phase",
    "decoding": "decoding = :decoding",
    "split": "split = :split",
    "task": "task = :task",
    "name": "name = :name",
    "step": "step = :step",
    "solved": "solved = :solved",
    "failed": "(calls_ok < calls) = :failed",
    "stopped": "(stopped > 0) = :stopped",
}


class EpisodeAsked(Asked):
    """Which episodes."""

    phase: Text | None = Field(None, description="before, after, now or practice.", examples=["after"])
    decoding: Literal["free", "greedy", "schema"] | None = None
    split: Text | None = Field(None, examples=["held_out"])
    task: Text | None = Field(None, description="A task's id.", examples=["held_out-0"])
    name: Text | None = Field(None, description="What its run called it.", examples=["held_out-0"])
    step: int | None = Field(None, ge=0, lt=10**9, description="Of practice.", examples=[20])
    solved: bool | None = None
    failed: bool | None = Field(
        None, description="Only those with a call that failed, or only those without."
    )
    stopped: bool | None = Field(
        None, description="Only those in which the guard stopped an action, or the others."
    )


class StepAsked(Asked):
    """Which steps."""

    limit: int = Field(100, ge=1, le=MOST_STEPS, description="Steps at most.")


def listed(folder: Path, asked: EpisodeAsked, *, of: str) -> EpisodePage:
    """A page of the episodes of a folder of traces, the newest first.

    Args:
        folder: of the trace files.
        asked: filters and paging.
        of: whose they are, which the cursor belongs to.

    Raises:
        ConfigError: the cursor is not one of this list.
        StorageError: the index cannot be written.
    """
    wanted = asked.model_dump(exclude={"limit", "cursor"}, exclude_none=True)
    limit = asked.limit
    bound = f"episodes {of} {json.dumps(wanted, sort_keys=True)}"
    after = paging.place(asked.cursor, bound, int)
    conditions = [CONDITIONS[name] for name in wanted]
    if after is not None:
        conditions.append("n < :after")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    query = f"SELECT * FROM episode {where} ORDER BY n DESC LIMIT :limit"
    with traces.opened(folder) as (index, complete):
        rows = index.execute(query, {**wanted, "after": after, "limit": limit + 1}).fetchall()
        counted = [PhaseCount(**dict(row)) for row in index.execute("SELECT * FROM phase ORDER BY phase")]
    phases = sorted(counted, key=lambda one: PHASES.index(one.phase) if one.phase in PHASES else len(PHASES))
    more = paging.cursor_at(rows[limit - 1]["n"], bound) if len(rows) > limit else None
    data = [EpisodeSummary.model_validate(_summary(row)) for row in rows[:limit]]
    return EpisodePage(data=data, next_cursor=more, complete=complete, phases=phases)


def one(folder: Path, episode_id: str, asked: StepAsked) -> EpisodeDetail:
    """One episode with some of its steps.

    Raises:
        UnknownNameError: there is none.
        ConfigError: the cursor is not one of this episode.
        StorageError: the index cannot be written.
    """
    file, _, start = episode_id.rpartition(":")
    bound = f"steps {episode_id}"
    first = paging.place(asked.cursor, bound, int) or 0
    with traces.opened(folder) as (index, complete):
        row = index.execute(
            "SELECT * FROM episode WHERE file = ? AND start = ?", (file, int(start))
        ).fetchone()
        if row is None:
            known = index.execute("SELECT file || ':' || start FROM episode ORDER BY n DESC LIMIT 8")
            raise UnknownNameError("episode", episode_id, [one[0] for one in known])
        places = index.execute(
            "SELECT place, bytes, reward FROM line WHERE episode = ? ORDER BY place", (row["n"],)
        ).fetchall()
    chosen = _within(places, first, asked.limit)
    total = sum(line["reward"] for line in places[:first])
    steps, criteria = [], {}
    read = traces.lines(folder, file, [(line["place"], line["bytes"]) for line in chosen])
    for at, (line, (content, whole)) in enumerate(zip(chosen, read, strict=False), first):
        total += line["reward"]
        found = _parsed(content) if whole else {}
        steps.append(_step(found, at, line, total, whole))
        if isinstance(found.get("criteria"), dict):
            criteria = {text(str(name), 200): bool(held) for name, held in found["criteria"].items()}
    after = first + len(chosen)
    return EpisodeDetail(
        **_summary(row),
        criteria=criteria,
        data=steps,
        next_cursor=paging.cursor_at(after, bound) if after < len(places) else None,
        complete=complete,
    )


def _summary(row: sqlite3.Row) -> dict[str, Any]:
    values = {key: row[key] for key in row.keys() if key not in ("n", "file", "start")}  # noqa: SIM118
    solved = None if values["solved"] is None else bool(values["solved"])
    return {**values, "id": f"{row['file']}:{row['start']}", "solved": solved}


def _within(places: list[sqlite3.Row], first: int, limit: int) -> list[sqlite3.Row]:
    """The lines that are read for one answer."""
    chosen: list[sqlite3.Row] = []
    read = 0
    for line in places[first : first + limit]:
        read += line["bytes"]
        if chosen and read > READ_BYTES:
            break
        chosen.append(line)
    return chosen


def _parsed(content: bytes) -> dict[str, Any]:
    """A line of a trace; nothing of one that has changed since the index was made."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _step(found: dict[str, Any], at: int, line: sqlite3.Row, total: float, whole: bool) -> EpisodeStep:
    parts = {
        name: _shown(found.get(name))
        for name in ("observation", "model_output", "proposed", "executed", "result")
    }
    proposed, executed = _object(parts["proposed"][0]), _object(parts["executed"][0])
    number, time_s, reasons = found.get("step"), found.get("time_s"), found.get("reasons")
    reasons = reasons if isinstance(reasons, list) else []
    return EpisodeStep(
        index=at,
        step=number if isinstance(number, int) and abs(number) < 10**15 else None,
        time_s=clean(float(time_s)) if isinstance(time_s, int | float) and abs(time_s) < 1e300 else None,
        bytes=line["bytes"],
        cut=not whole or any(cut for _, cut in parts.values()) or len(reasons) > MOST_REASONS,
        observation=parts["observation"][0],
        model_output=_text(parts["model_output"][0]),
        proposed=proposed,
        proposed_text=_line(proposed),
        verdict=text(str(found.get("verdict") or ""), 40),
        reasons=[text(str(one), 2_000) for one in reasons[:MOST_REASONS]],
        rule=text(str(found.get("rule") or ""), 200),
        confirmed=found.get("confirmed") is True,
        executed=executed,
        executed_text=_line(executed),
        result=parts["result"][0] if whole else f"This step has {line['bytes']:,} bytes, too many to show.",
        ok=bool(found) and succeeded(found),
        reward=line["reward"],
        total_reward=total,
    )


def _shown(value: Any) -> tuple[Any, bool]:
    """A value of at most `SHOWN_CHARACTERS`, and whether it was cut; an object keeps its type and name."""
    if value is None or isinstance(value, bool | int | float):
        return clean(value), False
    if isinstance(value, str):
        return text(value, SHOWN_CHARACTERS), len(value) > SHOWN_CHARACTERS
    small = clean(value)
    told = json.dumps(small, ensure_ascii=False)
    if len(told) <= SHOWN_CHARACTERS:
        return small, False
    if not isinstance(value, dict):
        return text(told, SHOWN_CHARACTERS), True
    kept = {name: text(str(value[name]), 200) for name in ("type", "name") if name in value}
    return {**kept, "cut": text(told, SHOWN_CHARACTERS)}, True


def _object(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _line(action: dict[str, Any] | None) -> str:
    """An action in one line; empty for none."""
    if action is None:
        return ""
    if "cut" in action:
        return text(f"{action.get('name', '')} {action['cut']}", LINE_CHARACTERS)
    arguments = action.get("arguments")
    plain = (
        action if isinstance(arguments, dict) or not arguments else {**action, "arguments": {"": arguments}}
    )
    return text(action_text(plain), LINE_CHARACTERS)
