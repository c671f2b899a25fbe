"""A harness that plays many sessions in one process: a JSON line for each task goes in, one with its result comes out.

    in    {"session": id, "environment": {"OPENAI_BASE_URL": …}, "task": {"prompt": …, "workdir": …}}
    out   {"session": id, "solved": true, "score": 0.9, "note": "", "output": "42", "self_reported": {"tool_calls": 3}}

A task of a scenario names it instead (`scenario`, `split`, `number`), and the harness judges it by the scenario's
criteria. Where a card has a checker, that decides, by the working copy and by `output`, and not the harness.

So eighty sessions do not start eighty Pythons. The process inherits no secret; each line brings the key of its own
session. It ends when its input ends, and so with the process that started it. What it prints on stderr is shown in part
if it dies, and kept nowhere. Limits: what it answers is text from outside: a line that is no result is dropped, and a
result for a session that it was not given is not looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from melete.bench import inheritance
from melete.bench.exec import end_group
from melete.bench.harness_profile import PLACEHOLDERS, HarnessProfile, render
from melete.bench.outcome import Outcome, one_line
from melete.bench.session import Opened
from melete.errors import ConfigError, MeleteError, SessionError
from melete.records import SessionRecord
from melete.settings import Settings


@dataclass(frozen=True)
class Answer:
    """What a harness says of a session, and what it printed for a checker to look at."""

    outcome: Outcome
    output: str | None = None


Results = queue.SimpleQueue[tuple[str, Answer | SessionRecord | MeleteError | None]]
"""What comes back of sessions: an answer, a session that has ended already, or why it could not be played."""
END_S = 5.0
LONGEST_LINE = 1_000_000


class Batch:
    """The process of one profile of mode `batch`. Make it in the thread that lives longest.

    Args:
        settings: home folder and data, which a harness of ours needs too.
        profile: its command and environment.
        results: where (session, answer) are put as they come, and at the end (name of the profile, None).

    Raises:
        ConfigError: there is no such program.
    """

    def __init__(self, settings: Settings, profile: HarnessProfile, results: Results) -> None:
        self.profile = profile
        self._results = results
        self._given: set[str] = set()
        values = {**dict.fromkeys(PLACEHOLDERS, ""), "python": sys.executable}
        environment = inheritance.inherited(profile, settings, os.environ)
        environment["MELETE_HOME"] = str(settings.home)
        if settings.data is not None:
            environment["MELETE_DATA"] = str(settings.data)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        try:
            self._child = subprocess.Popen(
                [render(part, values) for part in profile.command],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                process_group=0,
            )
        except OSError as error:
            self._said.close()
            raise ConfigError(
                f"The harness {profile.name} cannot be started: {error}.",
                next_step="Install it, or correct `command` in its profile.",
            ) from error
        self._reader = threading.Thread(target=self._read, name=f"batch {profile.name}", daemon=True)
        self._reader.start()

    def play(self, opened: Sequence[Opened], seed: int = 0) -> None:
        """Gives it tasks; `seed` goes along, for draws that an attempt shares between variants.

        Raises:
            SessionError: it has ended.
        """
        lines = [
            {
                "session": one.session.id,
                "environment": one.environment,
                "task": {**one.task, "seed": seed, "workdir": str(one.workdir)},
            }
            for one in opened
        ]
        self._given.update(one.session.id for one in opened)
        assert self._child.stdin is not None
        try:
            self._child.stdin.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            self._child.stdin.flush()
        except (OSError, ValueError) as error:
            raise self.died() from error

    def died(self) -> SessionError:
        """What to raise once it has ended, with the last error that it printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(END_S)
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").splitlines()
        errors = [one_line(line) for line in lines if line.startswith("error: ")]
        return SessionError(
            f"The harness {self.profile.name} ended with exit code {self._child.returncode} while it was played.",
            allowed=errors[-1].removeprefix("error: ") if errors else None,
            next_step="What it had under way was aborted; the same command plays what is missing.",
        )

    def close(self) -> None:
        """Ends it."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(END_S)
        end_group(self._child)
        self._reader.join(END_S)
        self._child.stdout.close()
        self._said.close()

    def _read(self) -> None:
        assert self._child.stdout is not None
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            while line := self._child.stdout.readline(LONGEST_LINE):
                result = parse(line)
                if result is not None and result[0] in self._given:
                    self._given.remove(result[0])
                    self._results.put(result)
        self._results.put((self.profile.name, None))


def parse(line: bytes) -> tuple[str, Answer] | None:
    """A line of a harness as session and answer; None if it is no result."""
    try:
        row = json.loads(line)
        if not isinstance(row, dict) or not isinstance(row["session"], str):
            return None
        score, solved, reported = row.get("score"), row.get("solved"), row.get("self_reported")
        outcome = Outcome(
            "harness",
            solved=solved if isinstance(solved, bool) else None,
            score=float(score) if isinstance(score, int | float) and 0 <= score <= 1 else None,
            note=str(row.get("note") or ""),
            self_reported=reported if isinstance(reported, dict) else {},
        )
        output = row.get("output")
        return row["session"], Answer(outcome, output if isinstance(output, str) else None)
    except (ValueError, KeyError, RecursionError):
        return None
