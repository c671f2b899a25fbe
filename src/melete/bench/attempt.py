"""One attempt of a harness at a task: working copy, child process, checker, outcome.

Whatever goes wrong on the way, the session ends: interrupted and impossible starts are aborted; at the time limit the
task counts as not solved; else the card's checker judges what was left behind. Without a checker the outcome stays
open, for a person to say.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from melete.bench import checkers, exec, inheritance, session, workspace
from melete.bench.checkers import Evidence
from melete.bench.exec import Ended
from melete.bench.harness_profile import render
from melete.bench.outcome import Outcome
from melete.bench.session import Opened
from melete.errors import ConfigError, SessionError
from melete.gateway import entities, sessions
from melete.records import SessionRecord
from melete.settings import Settings
from melete.store.database import connect

TIMEOUT_CODE = 124
"""Exit code of a harness that ran into the time limit, as of `timeout(1)`."""


def play(
    settings: Settings,
    opened: Opened,
    command: Sequence[str] = (),
    *,
    quiet: bool = False,
    keep_work: bool = False,
) -> tuple[SessionRecord, Ended]:
    """Lets a harness work on its task and ends the session.

    Args:
        settings: home folder and database.
        opened: a live session.
        command: what to start, with placeholders; the profile's command by default.
        quiet: whether nobody watches: no input, and output goes nowhere.
        keep_work: whether the working copy stays when the session ends.

    Raises:
        ConfigError: there is no command, no such program, or the card's files are not there; the session is aborted.
        SandboxError: the checker needs the sandbox, which could not be set up; the session is aborted.
    """
    try:
        workdir = prepare(opened)
        ended = exec.run(
            arguments(opened, command),
            environment(settings, opened),
            workdir,
            timeout_s=opened.timeout_s,
            catch_output=checkers.needs_output(opened.card.card.checker),
            quiet=quiet,
        )
        if ended.reason == "interrupted":
            return session.abort(settings, opened.session.id, "interrupted"), ended
        seen = {"exit_code": ended.exit_code, "ended": ended.reason, "wall_s": round(ended.wall_s, 3)}
        outcome = replace(judged(opened, Evidence(workdir, ended.output), ended), seen=seen)
        return session.finalize(settings, opened.session.id, outcome, keep_work=keep_work), ended
    except BaseException as error:
        with contextlib.suppress(SessionError):  # it may have ended by itself, such as by its time
            session.abort(settings, opened.session.id, f"could not be played: {type(error).__name__}")
        raise


def prepare(opened: Opened) -> Path:
    """The folder in which the harness works: a working copy of the task, unless it works elsewhere.

    Raises:
        ConfigError: the card's folder or repository is not there.
        StorageError: the copy cannot be written.
    """
    if opened.workdir == opened.folder / "work" and not opened.workdir.exists():
        workspace.prepare(opened.card, opened.workdir)
    return opened.workdir


def arguments(opened: Opened, command: Sequence[str]) -> list[str]:
    """The command with its placeholders replaced; each stays one argument, whatever a prompt holds.

    Raises:
        ConfigError: neither the caller nor the profile has a command that fits the task.
    """
    profile, card = opened.profile, opened.card
    if not command and (profile.mode != "command" or card.card.scenario is not None):
        raise ConfigError(
            f"The harness profile {profile.name!r} (mode {profile.mode}) cannot play {card.id!r} by itself.",
            next_step="Give a command after --, or play the experiment with: melete bench run",
        )
    return [render(text, opened.values) for text in (command or profile.command)]


def environment(settings: Settings, opened: Opened) -> dict[str, str]:
    """The whole environment of the harness: what it inherits, and what its profile says."""
    return {**inheritance.inherited(opened.profile, settings, os.environ), **opened.environment}


def judged(opened: Opened, evidence: Evidence, ended: Ended) -> Outcome:
    """The outcome of what a harness left behind.

    Raises:
        SandboxError: the checker needs the sandbox, which could not be set up.
    """
    if ended.reason == "timeout":
        return Outcome("checker", solved=False, note=f"not done within {opened.timeout_s:g} s")
    return _outcome(opened.card.card.checker, evidence)


def _outcome(checker: dict[str, Any], evidence: Evidence) -> Outcome:
    verdict = checkers.run(checker, evidence)
    if verdict is None:
        return Outcome("manual", note="nobody has judged it")
    return Outcome("checker", verdict.solved, verdict.score, verdict.note)


def check(settings: Settings, id: str) -> Outcome:
    """Judges a session that was played by hand, with the checker that was in force when it began.

    Raises:
        UnknownNameError: no such session.
        SessionError: its card has no checker, or the folder it worked in is gone.
    """
    with connect(settings.database) as connection:
        record = sessions.get(connection, id)
        document = (
            entities.document(connection, "task_card", record.task_card)
            if record.task_card is not None
            else {}
        )
    checker = document.get("checker")
    if not checker or checkers.needs_output(checker):
        why = "looks at what the harness prints, which nobody caught" if checker else "is not there"
        raise SessionError(
            f"The checker of session {record.id} {why}.",
            next_step="Say it yourself: --solved or --failed.",
        )
    workdir = Path(str(record.metadata.get("workdir", "")))
    if not workdir.is_dir():
        raise SessionError(f"The folder in which session {record.id} worked is not there: {workdir}.")
    return _outcome(checker, Evidence(workdir))
