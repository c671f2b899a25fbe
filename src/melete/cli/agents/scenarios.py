"""List, show, check and start scenarios."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from melete.cli._group import Group

if TYPE_CHECKING:
    from melete.agents.scenario import Scenario
    from melete.records import Turn

WIDTH = 100


@click.group(cls=Group)
def command() -> None:
    """List, show, check and start scenarios: what an agent practises.

    A scenario is a file; those of your own stand in ./scenarios or in the home folder's scenarios/.
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_scenarios(as_json: bool) -> None:
    """All scenarios, and whether they can be played here."""
    from melete.agents import scenario
    from melete.cli import _show

    rows = [_summary(name) for name in scenario.names()]
    if as_json:
        _show.print_json(rows)
        return
    keys = ["name", "version", "tools", "splits", "here", "description"]
    _show.table(keys, [[row[key] for key in keys] for row in rows], right=("tools",))


@command.command()
@click.argument("name")
@click.option("--seed", default=0, show_default=True, help="Seed of the samples.")
def show(name: str, seed: int) -> None:
    """Prompt, tools, guard, a request of each split and the expert at work."""
    from melete.agents import scenario

    loaded = scenario.load(name)
    click.echo(f"{loaded.name} {loaded.version}: {loaded.description}")
    low, high = loaded.reward_range
    click.echo(f"Reward {low:g} to {high:g}; at most {loaded.max_steps} steps.")
    reason = loaded.unavailable()
    if reason:
        click.echo(f"It cannot be played here: {reason}")
        return
    _show_terms(loaded)
    for split in loaded.splits:
        _section(f"A request of {split}")
        click.echo(_indented(loaded.tasks(split, 1, seed=seed)[0].request))
    _section("The expert at work")
    task = loaded.tasks(loaded.splits[0], 1, seed=seed)[0]
    environment = scenario.play(loaded.expert(task), loaded.create_environment(task))
    for turn in environment.turns:
        click.echo(_line(turn))
    outcome = environment.outcome
    click.echo(
        f"  reward {outcome.reward:.3f}, {outcome.tool_calls_ok} of {outcome.tool_calls} calls succeeded"
    )


@command.command()
@click.argument("name")
@click.option("--tasks", "count", default=2, show_default=True, help="Tasks of each split that are played.")
def check(name: str, count: int) -> int:
    """Plays a scenario and says what it does not keep; exit code 11 if anything."""
    from melete.agents import conformance, scenario
    from melete.errors import ScenarioError

    loaded = scenario.load(name)
    if reason := loaded.unavailable():
        raise ScenarioError(f"{name} cannot be played here: {reason}")
    tasks = conformance.some_tasks(loaded, count)
    bad = 0
    for one in conformance.CHECKS:
        problems = one(loaded, tasks)
        bad += bool(problems)
        click.echo(f"{'FAIL' if problems else 'ok  '}  {one.__name__.replace('_', ' ')}")
        for problem in problems[:5]:
            click.echo(f"      {problem}")
    click.echo(
        f"{len(conformance.CHECKS) - bad} of {len(conformance.CHECKS)} checks hold on {len(tasks)} tasks."
    )
    return ScenarioError.exit_code if bad else 0


@command.command()
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("scenarios"),
    show_default=True,
    help="Where.",
)
def new(name: str, folder: Path) -> None:
    """Write a commented scenario that works, to start from."""
    from melete import find
    from melete.agents import scenario
    from melete.errors import ConfigError

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"{name!r} is no name of a scenario.", allowed="Allowed: a to z, 0 to 9 and '_'.")
    path = folder / f"{name}.py"
    if name in scenario.names() or path.exists():
        raise ConfigError(f"A scenario named {name!r} exists already.", next_step="Choose another name.")
    text = (find.folder_of(scenario.PACKAGE) / "_new.py").read_text(encoding="utf-8")
    title = "".join(part.capitalize() for part in name.split("_"))
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("new_scenario", name).replace("NewScenario", title), encoding="utf-8")
    click.echo(f"Wrote {path}.")
    if folder.resolve() in [known.resolve() for known in scenario.folders()]:
        click.echo(f"Play it with: melete agents scenarios check {name}")
    else:
        click.echo("It is found by name once it stands in ./scenarios or in the home folder's scenarios/.")


def _summary(name: str) -> dict[str, Any]:
    """A row of the list; a scenario that cannot be loaded says why instead of ending the list."""
    from melete.agents import scenario
    from melete.errors import MeleteError

    try:
        loaded = scenario.load(name)
        reason = loaded.unavailable()
    except MeleteError as error:
        return {
            "name": name,
            "version": "",
            "tools": 0,
            "splits": "",
            "here": "no",
            "description": error.found,
        }
    return {
        "name": name,
        "version": loaded.version,
        "tools": len(loaded.toolset.schemas),
        "splits": " ".join(loaded.splits),
        "here": "yes" if reason is None else "no",
        "description": loaded.description if reason is None else reason.partition("\n")[0],
    }


def _show_terms(loaded: Scenario) -> None:
    """System prompt, tools, guard and criteria."""
    import yaml

    from melete.llm.chat import tools_text

    _section("System prompt")
    click.echo(_indented(loaded.system_prompt))
    _section("Tools")
    signatures = tools_text(loaded.toolset.schemas).split("\n")
    for signature, schema in zip(signatures, loaded.toolset.schemas, strict=True):
        click.echo(f"  {signature}\n      {schema['function']['description']}")
    _section("Guard")
    for rule in loaded.guard.to_dict()["rules"]:
        ((kind, options),) = rule.items()
        written = yaml.safe_dump(options, default_flow_style=True, sort_keys=False, width=10_000).strip()
        click.echo(f"  {kind}: {written}")
    _section("Solved when")
    for criterion in loaded.success_criteria():
        click.echo(f"  {criterion.name}: {criterion.description}")


def _section(title: str) -> None:
    click.echo(f"\n{title}")


def _indented(text: str) -> str:
    import textwrap

    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _line(turn: Turn) -> str:
    calls = " ".join(f"{call.name}({call.arguments})" for call in turn.tool_calls)
    text = " ".join(part for part in (turn.content, calls) if part)
    return f"  {turn.role:<10}{text}"
