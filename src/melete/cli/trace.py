"""Show, count and replay the traces of episodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from melete.cli._group import Group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from melete.actions.trace import Difference

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
EPISODE = click.option("--episode", help="Only this episode.")


@click.group(cls=Group)
def command() -> None:
    """Show, count and replay the traces of episodes.

    TRACE is a trace file, a folder of them, or a run (its id, the beginning of one, its name, or `latest`).
    """


@command.command()
@click.argument("trace")
@EPISODE
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The most steps shown.")
@JSON
def show(trace: str, episode: str | None, limit: int, as_json: bool) -> None:
    """The steps: what was proposed, judged, executed and answered."""
    from itertools import islice

    from melete.actions.trace import action_text
    from melete.cli import _show

    steps = _steps(trace, episode)
    shown = list(islice(steps, limit))
    more = next(steps, None) is not None
    if as_json:
        _show.print_json(shown)
        return
    if not shown:
        click.echo("No steps.")
    last, rows = None, []
    for step in shown:
        name = str(step.get("episode", ""))
        told = " ".join(step.get("reasons") or ()) or step.get("result")
        action = _cut(action_text(step.get("proposed") or {}))
        rows.append(
            (
                name if name != last else " ",
                step.get("step"),
                step.get("verdict"),
                action,
                _cut(told),
                step.get("reward"),
            )
        )
        last = name
    if rows:
        _show.table(
            ("episode", "step", "verdict", "proposed", "answer", "reward"), rows, right=("step", "reward")
        )
    if more:
        click.echo(f"\nThe first {limit} steps. More with --limit, or one episode with --episode.")


@command.command()
@click.argument("trace")
@EPISODE
@JSON
def stats(trace: str, episode: str | None, as_json: bool) -> None:
    """Episodes, tool reliability with its 95 % interval, verdicts, refusals by rule, reward."""
    from dataclasses import asdict

    from melete.actions.trace import summarise
    from melete.cli import _show
    from melete.metrics import mean, success_rate

    found = summarise(_steps(trace, episode))
    reliability = success_rate(found.calls_ok, found.calls) if found.calls else None
    reward = mean(list(found.rewards.values())) if found.rewards else None
    if as_json:
        _show.print_json({**asdict(found), "tool_reliability": reliability, "reward": reward})
        return
    _show.pairs(
        [
            ("episodes", len(found.rewards)),
            ("steps", found.steps),
            ("messages", found.messages),
            ("tool reliability", _score(reliability)),
            ("reward of an episode", _score(reward)),
        ]
    )
    for title, counts in (("verdict", found.verdicts), ("refused by", found.refusals)):
        if counts:
            click.echo()
            _show.table((title, "steps"), counts.most_common(), right=("steps",))
    if found.tools:
        click.echo()
        tools = [(name, calls, ok, f"{ok / calls:.1%}") for name, (calls, ok) in sorted(found.tools.items())]
        _show.table(("tool", "calls", "succeeded", "share"), tools, right=("calls", "succeeded", "share"))


@command.command()
@click.argument("trace")
@click.option("--guard", help="Guard file, or the name of one: judge every action again by it.")
@EPISODE
@JSON
def replay(trace: str, guard: str | None, episode: str | None, as_json: bool) -> int:
    """Judge every proposed action again under a guard; without one, check that what was executed follows the verdicts.

    Exit code 1 if a trace without --guard is not sound.
    """
    from melete.actions.guard import Guard
    from melete.actions.trace import check
    from melete.actions.trace import replay as judge_again
    from melete.cli import _show

    steps = list(_steps(trace, episode))
    found: list[Difference] = judge_again(steps, Guard.load(guard)) if guard else check(steps)
    if as_json:
        _show.print_json(found)
    else:
        if found:
            rows = [(one.episode, one.step, _cut(one.action), _cut(one.problem, 200)) for one in found]
            _show.table(("episode", "step", "proposed", "difference"), rows, right=("step",))
            click.echo()
        what = f"{guard} would judge" if guard else "the trace breaks its own verdicts in"
        click.echo(f"{len(steps)} steps; {what} {len(found)}{' of them differently' if guard else ''}.")
    return 1 if found and not guard else 0


def _steps(trace: str, episode: str | None) -> Iterator[dict[str, Any]]:
    """Steps of all the files that a name stands for.

    Raises:
        UnknownNameError: no file, folder or run has that name.
        ConfigError: it has no traces.
    """
    from melete import settings
    from melete.actions.trace import files, read
    from melete.errors import ConfigError
    from melete.runs import refs

    path = Path(trace)
    if path.is_file():
        found = [path]
    else:
        folder = path if path.is_dir() else refs.run(settings.load(), trace)
        found = files(folder)
        if not found:
            raise ConfigError(
                f"{trace} has no traces.",
                next_step="Only processes that play episodes write them, into traces/ of their run.",
            )
    return (s for one in found for s in read(one) if episode in (None, str(s.get("episode", ""))))


def _cut(value: Any, length: int = 100) -> str:
    text = " ".join(str(value or "").split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _score(interval: Any) -> str:
    if interval is None:
        return "–"
    return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}] n={interval.count}"
