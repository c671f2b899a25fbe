"""Run a harness on a task in a session of its own, and judge what it left."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--variant", required=True, help="Variant to measure.")
@click.option("--task", required=True, help="Task card, or NAME/NUMBER of a set.")
@click.option("--experiment", help="Experiment that it belongs to.")
@click.option("--attempt", type=click.IntRange(0), help="Repeat, from 0; the first free one by default.")
@click.option("--timeout-s", type=click.FloatRange(0, min_open=True), help="Seconds that it may take.")
@click.option("--workdir", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Work there.")
@click.option("--keep", is_flag=True, help="Keep the working copy.")
@click.option("--up", "start_gateway", is_flag=True, help="Start the gateway if it is not up.")
@click.option(
    "--litellm", metavar="URL", help="Use that LiteLLM, which has a database, and its virtual keys."
)
@click.argument("harness", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def command(
    variant: str,
    task: str,
    experiment: str | None,
    attempt: int | None,
    timeout_s: float | None,
    workdir: Path | None,
    keep: bool,
    start_gateway: bool,
    litellm: str | None,
    harness: tuple[str, ...],
) -> int:
    """Run a harness on a task in a session of its own, and judge what it left with the task card's checker.

    COMMAND is started as it stands, without a shell, in a fresh working copy of the task and with the session's
    environment; {prompt}, {workdir}, {model} and {session_dir} in it are filled in. Without it the command of the
    harness profile is used. Input, output and exit code are the harness's; 124 means that its time was over.
    """
    from melete import settings as all_settings
    from melete.bench import attempt as attempts
    from melete.bench import session, traffic
    from melete.bench.planned import Plan
    from melete.store import database

    settings = all_settings.load()
    session.sweep(settings)
    plan = Plan(variant, task, experiment, attempt, timeout_s)
    where = workdir and workdir.absolute()
    with database.opened(settings.database) as engine:
        url = litellm or session.reach(settings, [variant], start=start_gateway).url
        issuer = session.issuer_of(engine, litellm)
        opened = session.start(settings, plan, url, workdir=where, issuer=issuer)
    record, ended = attempts.play(settings, opened, harness, keep_work=keep)
    with database.connect(settings.database) as connection:
        used = traffic.of_session(connection, record.id)
    judged = {True: "solved", False: "not solved", None: "nobody has judged it"}[record.solved]
    note = f" ({record.outcome_note})" if record.outcome_note and record.solved is not None else ""
    click.echo(f"Session {record.id} is {record.state}: {judged}{note}; {used.line()}", err=True)
    if keep and record.state == "finalised":
        click.echo(f"Its working copy: {opened.workdir}", err=True)
    return {"timeout": attempts.TIMEOUT_CODE, "interrupted": 130}.get(ended.reason, ended.exit_code)
