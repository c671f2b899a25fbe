"""Episodes in traces: an index beside them that grows with the files and can be thrown away at any time.

    <folder>/.episodes/index.db     SQLite: each episode with its counts, the place of each of its lines, calls by tool

Lines of many episodes stand mixed in one file, because they are played at once; with the index one episode is read
without the others. Only what was added is parsed, and never for longer than a budget, so the first answers of a long
file hold its beginning and say so. A file that was rewritten (an exam that was repeated) is read anew. An episode is
named by its file and the place of its first line, which stays. A line longer than `LONGEST_LINE` is counted and named,
not parsed.
"""

from __future__ import annotations

import errno
import json
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melete.actions.trace import succeeded
from melete.api.clean import text
from melete.api.lines import tail
from melete.runs.folder import storage_error
from melete.supervision import one_at_a_time

FOLDER = ".episodes"
VERSION = 1
BLOCK_BYTES = 1 << 20
LONGEST_LINE = 16 << 20
MOST_BLOCK_BYTES = 64 << 20
"""A file is read no further than to a line that is longer."""
BUDGET_S = 0.1
MOST_FILES = 100
REQUEST_CHARACTERS = 300
NAME_CHARACTERS = 200
STOPPED = ("refuse", "ask", "abort")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
EXAM = re.compile(r"(before|after|now)-(?:(greedy|schema)-)?(.+)")
BEGINNING = re.compile(rb'"step": ?(\d{1,9}),(?: ?"run": ?"[^"]*",)? ?"episode": ?"([^"\\]*)"')
GROUP = re.compile(r"(\d{1,9})\.\d{1,9}-")
COUNTS = ("steps", "messages", "calls", "calls_ok", "stopped", "clamped")
SCHEMA = f"""
CREATE TABLE file (name TEXT PRIMARY KEY, read INTEGER NOT NULL, tail TEXT NOT NULL);
CREATE TABLE episode (
    n INTEGER PRIMARY KEY, file TEXT NOT NULL, start INTEGER NOT NULL, name TEXT NOT NULL, phase TEXT NOT NULL,
    decoding TEXT NOT NULL, step INTEGER, task TEXT, split TEXT, request TEXT NOT NULL, begun_s REAL, ended_s REAL,
    steps INTEGER NOT NULL, messages INTEGER NOT NULL, calls INTEGER NOT NULL, calls_ok INTEGER NOT NULL,
    stopped INTEGER NOT NULL, clamped INTEGER NOT NULL, reward REAL NOT NULL, solved INTEGER);
CREATE UNIQUE INDEX episode_by_place ON episode (file, start);
CREATE INDEX episode_by_name ON episode (file, name);
CREATE INDEX episode_by_phase ON episode (phase, n);
CREATE INDEX episode_by_task ON episode (task, n);
CREATE TABLE line (
    episode INTEGER NOT NULL, place INTEGER NOT NULL, bytes INTEGER NOT NULL, reward REAL NOT NULL,
    PRIMARY KEY (episode, place)) WITHOUT ROWID;
CREATE TABLE call (
    episode INTEGER NOT NULL, tool TEXT NOT NULL, calls INTEGER NOT NULL, calls_ok INTEGER NOT NULL,
    PRIMARY KEY (episode, tool)) WITHOUT ROWID;
CREATE TABLE phase (
    phase TEXT PRIMARY KEY, episodes INTEGER NOT NULL, ended INTEGER NOT NULL, solved INTEGER NOT NULL,
    calls INTEGER NOT NULL, calls_ok INTEGER NOT NULL);
PRAGMA user_version = {VERSION};
"""


@dataclass
class _Episode:
    """An episode as far as it was read; `n` is its row, 0 for one that has none yet."""

    n: int
    values: dict[str, Any]
    lines: list[tuple[int, int, float]] = field(default_factory=list)
    tools: dict[str, list[int]] = field(default_factory=dict)


@contextmanager
def opened(traces: Path, budget_s: float = BUDGET_S) -> Iterator[tuple[sqlite3.Connection, bool]]:
    """The index of a folder of traces, brought up to date for at most `budget_s` seconds, and whether that was enough.

    Raises:
        StorageError: the index cannot be written.
    """
    if not traces.is_dir():
        with closing(_connect(":memory:")) as connection:
            connection.executescript(SCHEMA)
            yield connection, True
        return
    folder = traces / FOLDER
    try:
        with closing(_prepared(folder)) as connection:
            yield connection, _caught_up(traces, folder, connection, time.monotonic() + budget_s)
    except sqlite3.DatabaseError as error:
        number = errno.ENOSPC if "full" in str(error) else errno.EIO
        raise storage_error(folder, OSError(number, str(error))) from error
    except OSError as error:
        raise storage_error(folder, error) from error


def files(traces: Path) -> list[Path]:
    """The trace files of a folder that are read: plain ones of plain names."""
    found = sorted(path for path in traces.glob("*.jsonl") if FILE.fullmatch(path.stem))
    return [path for path in found if path.is_file() and not path.is_symlink()][:MOST_FILES]


def lines(traces: Path, file: str, places: Iterable[tuple[int, int]]) -> Iterator[tuple[bytes, bool]]:
    """Lines of a trace file by place and length; of one that is too long its beginning, and whether it is whole."""
    try:
        with (traces / f"{file}.jsonl").open("rb") as opened:
            for place, length in places:
                opened.seek(place)
                yield opened.read(min(length, LONGEST_LINE)), length <= LONGEST_LINE
    except FileNotFoundError:  # an exam that begins anew
        return


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=2.0, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def _prepared(folder: Path) -> sqlite3.Connection:
    """The index file, made or made anew if it is of another version, or no database any more."""
    folder.mkdir(exist_ok=True)
    connection = _connect(str(folder / "index.db"))
    try:
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        connection.close()
        for file in folder.glob("index.db*"):
            file.unlink(missing_ok=True)
        return _prepared(folder)
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != VERSION:
        with one_at_a_time(folder / "lock"):
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                names = [
                    row[0]
                    for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                ]
                dropped = "".join(f'DROP TABLE "{name}";' for name in names)
                connection.executescript(f"BEGIN; {dropped} {SCHEMA} COMMIT;")
    return connection


def _caught_up(traces: Path, folder: Path, index: sqlite3.Connection, until_s: float) -> bool:
    """Whether the index holds all that the files do; reads on if this thread may."""
    known = {row["name"]: row for row in index.execute("SELECT * FROM file")}
    present = files(traces)
    sizes = {path.stem: path.stat().st_size for path in present}
    if all(name in known and _is_same(traces, known[name], size) for name, size in sizes.items()):
        return True
    with one_at_a_time(folder / "lock", wait=False) as mine:
        if not mine:
            return False
        for path in present:
            if not _read_on(path, index, until_s):
                return False
    return True


def _is_same(traces: Path, row: sqlite3.Row, size: int) -> bool:
    if row["read"] != size:
        return False
    with (traces / f"{row['name']}.jsonl").open("rb") as file:
        return bool(row["tail"] == tail(file, row["read"]))


def _read_on(path: Path, index: sqlite3.Connection, until_s: float) -> bool:
    """Adds what a file has more than the index; whether that is all."""
    name = path.stem
    with path.open("rb") as file:
        row = index.execute("SELECT * FROM file WHERE name = ?", (name,)).fetchone()
        if row is not None and row["tail"] != tail(file, row["read"]):
            _forget(index, name)
            row = None
        offset, block_bytes = (row["read"] if row else 0), BLOCK_BYTES
        while time.monotonic() < until_s:
            file.seek(offset)
            block = file.read(block_bytes)
            whole = block[: block.rfind(b"\n") + 1]
            if not whole:  # a line that is being written, or one longer than a block
                if len(block) < block_bytes or block_bytes > MOST_BLOCK_BYTES:
                    return True
                block_bytes *= 2
                continue
            index.execute("BEGIN IMMEDIATE")
            _add(index, name, whole, offset)
            offset, block_bytes = offset + len(whole), BLOCK_BYTES
            index.execute("REPLACE INTO file VALUES (?, ?, ?)", (name, offset, tail(file, offset)))
            index.execute("COMMIT")
    return False


def _forget(index: sqlite3.Connection, name: str) -> None:
    """Takes a file that was rewritten out of the index."""
    index.execute("BEGIN IMMEDIATE")
    own = "(SELECT n FROM episode WHERE file = ?)"
    index.execute(f"DELETE FROM line WHERE episode IN {own}", (name,))
    index.execute(f"DELETE FROM call WHERE episode IN {own}", (name,))
    index.execute("DELETE FROM episode WHERE file = ?", (name,))
    index.execute("DELETE FROM file WHERE name = ?", (name,))
    index.execute("DELETE FROM phase")
    index.execute(
        "INSERT INTO phase SELECT phase, count(*), count(solved), coalesce(sum(solved), 0), sum(calls), sum(calls_ok) "
        "FROM episode GROUP BY phase"
    )
    index.execute("COMMIT")


def _add(index: sqlite3.Connection, file: str, block: bytes, offset: int) -> None:
    """Adds whole lines that begin at `offset`."""
    episodes: dict[str, _Episode] = {}
    finished: list[_Episode] = []
    for line in block[:-1].split(b"\n"):
        place, offset = offset, offset + len(line) + 1
        step = _parsed(line)
        if step is None:
            continue
        name = text(str(step.get("episode", "")), NAME_CHARACTERS)
        episode = None if step.get("step") == 1 else episodes.get(name) or _known(index, file, name)
        if episode is None:
            if name in episodes:
                finished.append(episodes[name])
            episode = _begun(file, name, place, step)
        episodes[name] = episode
        _count(episode, step, place, len(line))
    for episode in [*finished, *episodes.values()]:
        _keep(index, episode)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A step; of a line that is too long, what its beginning tells; None for what is none."""
    try:
        if len(line) > LONGEST_LINE:
            found = BEGINNING.search(line[:65_536])
            return {"step": int(found[1]), "episode": found[2].decode("utf-8", "replace")} if found else None
        step = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return step if isinstance(step, dict) else None


def _begun(file: str, name: str, place: int, step: dict[str, Any]) -> _Episode:
    exam, group = EXAM.fullmatch(file), GROUP.match(name)
    seen = step.get("observation")
    values: dict[str, Any] = {
        "file": file, "start": place, "name": name,
        "phase": exam[1] if exam else "practice" if file == "rollouts" else file,
        "decoding": exam[2] or "free" if exam else "free",
        "step": int(group[1]) if group and not exam else None,
        "task": _name(step.get("task")), "split": _name(step.get("split")),
        "request": text(seen, REQUEST_CHARACTERS) if isinstance(seen, str) else "",
        "begun_s": _number(step.get("time_s")), "ended_s": None, "reward": 0.0, "solved": None,
        **dict.fromkeys(COUNTS, 0),
    }  # fmt: skip
    return _Episode(0, values)


def _known(index: sqlite3.Connection, file: str, name: str) -> _Episode | None:
    """The newest episode of a name that was read before."""
    row = index.execute(
        "SELECT * FROM episode WHERE file = ? AND name = ? ORDER BY n DESC LIMIT 1", (file, name)
    ).fetchone()
    return _Episode(row["n"], {key: row[key] for key in row.keys() if key != "n"}) if row else None  # noqa: SIM118


def _count(episode: _Episode, step: dict[str, Any], place: int, length: int) -> None:
    """Adds a step to its episode."""
    values, reward = episode.values, _number(step.get("reward")) or 0.0
    episode.lines.append((place, length, reward))
    values["steps"] += 1
    values["reward"] += reward
    values["ended_s"] = _number(step.get("time_s")) or values["ended_s"]
    proposed = step.get("proposed")
    proposed = proposed if isinstance(proposed, dict) else {}
    verdict, kind = step.get("verdict"), proposed.get("type")
    values["stopped"] += verdict in STOPPED
    values["clamped"] += verdict == "clamp"
    values["messages"] += kind == "message"
    if kind in ("tool", "malformed"):
        ok = succeeded(step)
        values["calls"] += 1
        values["calls_ok"] += ok
        counts = episode.tools.setdefault(
            text(str(proposed.get("name") or "(malformed)"), NAME_CHARACTERS), [0, 0]
        )
        counts[0] += 1
        counts[1] += ok
    if isinstance(step.get("solved"), bool):
        values["solved"] = int(step["solved"])


def _keep(index: sqlite3.Connection, episode: _Episode) -> None:
    """Writes what was read of an episode, and adds the difference to its phase."""
    values, old = episode.values, None
    if episode.n:
        old = index.execute("SELECT * FROM episode WHERE n = ?", (episode.n,)).fetchone()
        given = ", ".join(f"{key} = :{key}" for key in values)
        index.execute(f"UPDATE episode SET {given} WHERE n = :n", {**values, "n": episode.n})
    else:
        names = ", ".join(values)
        made = index.execute(
            f"INSERT INTO episode ({names}) VALUES ({', '.join(':' + key for key in values)})", values
        )
        episode.n = made.lastrowid or 0
    index.executemany("REPLACE INTO line VALUES (?, ?, ?, ?)", [(episode.n, *line) for line in episode.lines])
    index.executemany(
        "INSERT INTO call VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "calls = calls + excluded.calls, calls_ok = calls_ok + excluded.calls_ok",
        [(episode.n, tool, *counts) for tool, counts in episode.tools.items()],
    )
    was = dict(old) if old is not None else {"solved": None, "calls": 0, "calls_ok": 0}
    index.execute(
        "INSERT INTO phase VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "episodes = episodes + excluded.episodes, ended = ended + excluded.ended, "
        "solved = solved + excluded.solved, calls = calls + excluded.calls, "
        "calls_ok = calls_ok + excluded.calls_ok",
        (
            values["phase"],
            int(old is None),
            int(values["solved"] is not None) - int(was["solved"] is not None),
            (values["solved"] or 0) - (was["solved"] or 0),
            values["calls"] - was["calls"],
            values["calls_ok"] - was["calls_ok"],
        ),
    )


def _name(value: Any) -> str | None:
    return text(value, NAME_CHARACTERS) if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    """A finite number, else None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) < 1e300 else None
