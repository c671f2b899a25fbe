"""Play tasks of a scenario as a harness: address, key and model come from the environment."""

from __future__ import annotations

import click


@click.command("play")
@click.option("--scenario", default="customer_support", show_default=True, help="Scenario to play.")
@click.option("--split", default="held_out", show_default=True, help="Split that the task is of.")
@click.option(
    "--task", "number", default=0, show_default=True, type=click.IntRange(0), help="Its number in the split."
)
@click.option("--attempt", default=0, show_default=True, type=click.IntRange(0), help="Repeat of the task.")
@click.option(
    "--batch",
    is_flag=True,
    help="Read tasks as JSON lines from stdin, write results as JSON lines to stdout.",
)
@click.option(
    "--concurrency",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Tasks of a batch played at once.",
)
@click.option("--framework", default="openai", show_default=True, help="Framework whose agent plays.")
@click.option("--agent", "build", default="", metavar="MODULE:NAME", help="Your own agent of the framework.")
@click.option("--temperature", type=click.FloatRange(0), help="Of every completion. [default: the server's]")
@click.option("--max-tokens", type=click.IntRange(1), help="Most tokens of one turn. [default: the server's]")
@click.option("--timeout-s", default=300.0, show_default=True, help="Longest that one task may take.")
def command(
    scenario: str,
    split: str,
    number: int,
    attempt: int,
    batch: bool,
    concurrency: int,
    framework: str,
    build: str,
    temperature: float | None,
    max_tokens: int | None,
    timeout_s: float,
) -> int:
    """Play tasks of a scenario as a harness: address, key and model come from the environment.

    OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL say where the model answers, as `melete bench exec` and
    `melete bench session start` set them. Prints what came of the task; exit code 1 if it was not solved.
    """
    import os
    import sys

    from melete.agents import frameworks, play

    agent = frameworks.agent(framework, build)
    if batch:
        play.play_lines(agent, sys.stdin, sys.stdout, concurrency=concurrency, timeout_s=timeout_s)
        return 0
    asked = {"temperature": temperature, "max_tokens": max_tokens}
    order = play.of(
        os.environ,
        session="task",
        scenario=scenario,
        split=split,
        number=number,
        attempt=attempt,
        sampling={name: value for name, value in asked.items() if value is not None},
    )
    ended = play.play(agent, order, timeout_s)
    said = ended.self_reported
    click.echo(
        f"{'solved' if ended.solved else 'not solved'}: "
        f"{said.get('tool_calls_ok', 0)} of {said.get('tool_calls', 0)} calls succeeded, "
        f"{said.get('refused', 0)} refused, {said['seconds']:.1f} s"
        + (f" ({ended.note})" if ended.note else "")
    )
    return 0 if ended.solved else 1
