"""Start, list, show, watch, finalize and abort sessions."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from melete.cli._group import Group
from melete.records import SessionState

if TYPE_CHECKING:
    from pathlib import Path

    from melete.bench.session import Opened
    from melete.records import SessionRecord
    from melete.settings import Settings

FORMATS = ("shell", "dotenv", "json", "powershell")
STATES = [str(state) for state in SessionState]
WATCH_S = 1.0


@click.group(cls=Group)
def command() -> None:
    """Start, list, show, watch, finalize and abort sessions: the traffic of one harness with one task.

    SESSION is an id, the beginning of one, or nothing: then the one of this shell (MELETE_SESSION), else the newest.
    """


@command.command()
@click.option("--variant", required=True, help="Variant to measure.")
@click.option("--task", required=True, help="Task card, or NAME/NUMBER of a set.")
@click.option("--experiment", help="Experiment that it belongs to.")
@click.option("--attempt", type=click.IntRange(0), help="Repeat, from 0; the first free one by default.")
@click.option(
    "--timeout-s", type=click.FloatRange(0, min_open=True), help="Seconds that it may take. [default: 4 h]"
)
@click.option("--format", "kind", type=click.Choice(FORMATS), default="shell", show_default=True)
@click.option("--here", is_flag=True, help="Work in this folder, not in a working copy of the task's files.")
@click.option("--up", "start_gateway", is_flag=True, help="Start the gateway if it is not up.")
@click.option(
    "--litellm", metavar="URL", help="Use that LiteLLM, which has a database, and its virtual keys."
)
def start(
    variant: str,
    task: str,
    experiment: str | None,
    attempt: int | None,
    timeout_s: float | None,
    kind: str,
    here: bool,
    start_gateway: bool,
    litellm: str | None,
) -> None:
    """Open a session and print the environment for its harness, and nothing else, on stdout.

    \b
    eval "$(melete bench session start --variant careful --task capital)"
    """
    from melete import settings as all_settings
    from melete.bench import checkers, planned, session, snippet
    from melete.bench.planned import Plan
    from melete.store import database

    settings = all_settings.load()
    session.sweep(settings)
    plan = Plan(variant, task, experiment, attempt, timeout_s or planned.BY_HAND_S)
    where = _workdir(settings, task, here)
    with database.opened(settings.database) as engine:
        url = litellm or session.reach(settings, [variant], start=start_gateway).url
        issuer = session.issuer_of(engine, litellm)
        opened = session.start(settings, plan, url, workdir=where, issuer=issuer)
    try:
        click.echo(snippet.render(kind, opened.environment, opened.unset), nl=False)
        _prepare(opened)
    except BaseException:
        session.abort(settings, opened.session.id, "its environment could not be handed over")
        raise
    _say(f"Session {opened.session.id} is live for {_left(opened.session)}; its key is shown this once.")
    checker = opened.card.card.checker
    how = "--check" if checker and not checkers.needs_output(checker) else "--solved, or --failed"
    _say(f"End it with: melete bench session finalize {how}")


def _workdir(settings: Settings, task: str, here: bool) -> Path | None:
    """This folder, where it is asked for or the task brings no files; None for a working copy."""
    from pathlib import Path

    from melete.bench.folder import Bench

    return Path.cwd() if here or not Bench(settings).card(task).has_files else None


def _prepare(opened: Opened) -> None:
    from melete.bench import attempt

    if not opened.workdir.exists():
        _say(f"Work in: cd {attempt.prepare(opened)}")
    if opened.card.card.prompt:
        _say(f"The task: {opened.card.card.prompt}")


@command.command("list")
@click.option("--variant", help="Only those of a variant.")
@click.option("--task", help="Only those of a task card.")
@click.option("--experiment", help="Only those of an experiment.")
@click.option("--state", type=click.Choice(STATES), help="Only those in a state.")
@click.option("--kind", type=click.Choice(["gateway", "rollout"]), help="Only those of a kind.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(
    variant: str | None,
    task: str | None,
    experiment: str | None,
    state: str | None,
    kind: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List sessions, newest first."""
    from melete.bench import traffic
    from melete.cli import _show
    from melete.gateway import sessions
    from melete.gateway.entities import name_of

    with _store() as connection:
        found = sessions.list_sessions(
            connection,
            variant=variant,
            task_card=task,
            experiment=experiment,
            state=state,
            kind=kind,
            limit=limit,
        )
        if as_json:
            _show.print_json(found)
            return
        if not found:
            asked = any((variant, task, experiment, state, kind))
            none = "No such session is there." if asked else "No session is there."
            click.echo(f"{none} Start one with: melete bench session start, or melete bench exec")
            return
        rows = []
        for each in found:
            used = traffic.of_session(connection, each.id)
            names = [name_of(id) if id else None for id in (each.variant, each.task_card)]
            age = _show.age(time.time() - each.created_s)
            cost = None if used.cost_usd is None else traffic.usd(used.cost_usd)
            rows.append(
                (
                    each.id,
                    str(each.state),
                    _outcome(each),
                    *names,
                    each.attempt,
                    used.requests,
                    cost,
                    age,
                )
            )
    head = ("session", "state", "outcome", "variant", "task", "attempt", "requests", "cost", "age")
    spare = ("attempt", "requests", "age")
    _show.table(head, rows, right=(*spare, "cost"), spare=spare)


@command.command()
@click.argument("session", default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(session: str, as_json: bool) -> None:
    """Show a session: what it is of, where it ran, what came of it, what it used."""
    from melete.bench import traffic
    from melete.cli import _show

    with _store() as connection:
        found = _session(connection, session)
        used = traffic.of_session(connection, found.id)
    if as_json:
        _show.print_json({"session": found, "traffic": used})
        return
    click.echo(f"{found.id}  {found.state}  {_outcome(found)}")
    rows = [("experiment", found.experiment), ("variant", found.variant), ("task", found.task_card)]
    rows += [
        ("attempt", str(found.attempt)),
        ("harness", found.harness_profile),
        ("provider", found.provider),
    ]
    rows += [("model", found.model), ("traffic", used.line())]
    for name, moment in (
        ("created", found.created_s),
        ("ended", found.ended_s),
        ("expires", found.expires_s),
    ):
        if moment is not None:
            rows.append((name, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))))
    rows += [(name, _plain(value)) for name, value in sorted(found.metadata.items())]
    _show.pairs([("note", found.outcome_note), *rows] if found.outcome_note else rows)


@command.command()
@click.argument("session", default="")
def watch(session: str) -> None:
    """Watch a session's requests, tokens and cost until it ends; Ctrl-C stops watching only."""
    import sys

    from melete.bench import traffic
    from melete.gateway import sessions

    last = ""
    while True:
        with _store() as connection:
            found = _session(connection, session)
            line = f"{found.id}  {found.state}  {traffic.of_session(connection, found.id).line()}"
        session = found.id
        if line != last and sys.stdout.isatty():
            click.echo(f"\r\033[K{line}", nl=False)
        elif line != last:
            click.echo(line)
        last = line
        if found.state in sessions.ENDED:
            if sys.stdout.isatty():
                click.echo()
            return
        time.sleep(WATCH_S)


@command.command()
@click.argument("session", default="")
@click.option("--solved", "solved", flag_value="solved", help="The task was solved.")
@click.option("--failed", "solved", flag_value="failed", help="It was not.")
@click.option("--check", "solved", flag_value="check", help="Let the task card's checker decide.")
@click.option("--score", type=click.FloatRange(0, 1), help="From 0 to 1, where there is one.")
@click.option("--note", default="", help="One line that is kept with the outcome.")
@click.option(
    "--drain-s", type=click.FloatRange(0, 600), default=10.0, show_default=True, help="Seconds to wait."
)
@click.option("--keep", is_flag=True, help="Keep the working copy.")
def finalize(
    session: str, solved: str | None, score: float | None, note: str, drain_s: float, keep: bool
) -> None:
    """End a session with its outcome: its key dies, answers on their way are waited for, its figures are computed."""
    from melete import settings as all_settings
    from melete.bench import attempt
    from melete.bench import session as life
    from melete.bench.outcome import Outcome
    from melete.errors import ConfigError

    settings = all_settings.load()
    with _store() as connection:
        found = _session(connection, session)
    if solved == "check" and score is not None:
        raise ConfigError("--check and --score exclude each other: the checker gives the score.")
    if solved is None and score is None:
        raise ConfigError(
            f"What came of session {found.id}?", allowed="Say --solved, --failed, --check or --score S."
        )
    if solved == "check":
        outcome = attempt.check(settings, found.id)
    else:
        outcome = Outcome("manual", None if solved is None else solved == "solved", score, note)
    ended = life.finalize(settings, found.id, outcome, drain_s=drain_s, keep_work=keep)
    _summary(settings, ended)


@command.command()
@click.argument("session", default="")
@click.option("--note", default="", help="One line that is kept with it.")
def abort(session: str, note: str) -> None:
    """End a session without an outcome: its key dies, and what it has cost stays."""
    from melete import settings as all_settings
    from melete.bench import session as life

    settings = all_settings.load()
    with _store() as connection:
        found = _session(connection, session)
    _summary(settings, life.abort(settings, found.id, note))


def _store() -> Any:
    """The store, with what the gateway has recorded so far read into it and overdue sessions expired."""
    from melete import settings as all_settings
    from melete.bench import session
    from melete.gateway.collectors import spool
    from melete.store.database import connect

    settings = all_settings.load()
    spool.collect(settings)
    session.sweep(settings)
    return connect(settings.database)


def _session(connection: Any, id: str) -> SessionRecord:
    from melete.errors import UnknownNameError
    from melete.gateway import sessions

    id = id or os.environ.get("MELETE_SESSION", "")
    if id and id != "latest":
        return sessions.get(connection, id)
    newest = sessions.list_sessions(connection, limit=1)
    if not newest:
        raise UnknownNameError(
            "session", "latest", [], next_step="Start one with: melete bench session start"
        )
    return newest[0]


def _summary(settings: Settings, ended: SessionRecord) -> None:
    from melete.bench import traffic
    from melete.store.database import connect

    with connect(settings.database) as connection:
        used = traffic.of_session(connection, ended.id)
    _say(f"Session {ended.id} is {ended.state}: {_outcome(ended)}; {used.line()}")


def _outcome(session: SessionRecord) -> str:
    word = {True: "solved", False: "not solved", None: ""}[session.solved]
    said = session.solved is not None and session.score == session.solved
    score = "" if session.score is None or said else f"score {session.score:.2f}"
    return ", ".join(part for part in (word, score) if part) or "no outcome"


def _left(session: SessionRecord) -> str:
    from melete.cli import _show

    return _show.age(max(0.0, (session.expires_s or 0.0) - time.time()))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return value if not isinstance(value, bool) else ("yes" if value else "no")


def _say(text: str) -> None:
    click.echo(text, err=True)
