"""Plays an experiment through the gateway without a person, and reports the variants side by side.

Every variant plays every task card as often as the experiment says; what was finalised before is not played again. Runs
of this home are served for it: --before and --after name those behind the models `before` and `after`. It ends with the
paired differences to the baseline, and the report stands in the run's folder.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from melete.errors import ConfigError
from melete.runs.process import Input, ProcessConfig
from melete.runs.run import Run

if TYPE_CHECKING:
    from melete.bench.play import Schedule
    from melete.settings import Settings

SHOWN = ("success", "tool_reliability", "tokens_per_solved", "cost_per_solved", "latency", "ttft")
"""Metrics whose sentence is printed."""
ARGUMENT = "experiment"
EXAMPLE = {"experiment": "first_steps", "attempts": 1, "tasks": 1}


class Config(ProcessConfig):
    """Options of `bench.run`."""

    experiment: str = Field("support", min_length=1, description="Experiment to play, by name.")
    variants: list[str] = Field([], description="Only these variants of it.")
    before: Annotated[str, Input("model", kinds=("llm",))] = Field(
        "",
        description="Run that answers as the model `before`; empty is the one that the provider file names.",
    )
    after: Annotated[str, Input("model", kinds=("llm",))] = Field(
        "", description="Run that answers as the model `after`."
    )
    tasks: int = Field(0, ge=0, description="Only the first so many cards of each set; 0 is all.")
    attempts: int = Field(
        0, ge=0, le=1000, description="Attempts at each card; 0 is what the experiment says."
    )
    concurrency: int = Field(8, ge=1, le=512, description="Sessions at once.")
    again: bool = Field(False, description="Play cells again that were finalised before.")


def main(config: Config, run: Run) -> None:
    """Plays what is missing, then reports all that is there."""
    from melete import settings as settings_module
    from melete.bench import play

    settings = settings_module.load()
    order = play.Order(
        config.experiment,
        variants=tuple(config.variants),
        tasks=config.tasks,
        attempts=config.attempts or None,
        concurrency=config.concurrency,
        runs={name: ref for name, ref in (("before", config.before), ("after", config.after)) if ref},
        again=config.again,
        device=config.device,
        seed=config.seed,
        run=run.id,
    )
    plan = play.schedule(settings, order)
    before = f"; {plan.done:,} were finalised before" if plan.done else ""
    run.say(f"{config.experiment}: {len(plan.cells):,} sessions of {', '.join(plan.variants)}{before}")
    if plan.cells:
        run.say("Getting the gateway ready, which takes some ten seconds ...")
    _play(settings, plan, run)
    if not run.stopping:
        _report(settings, config, run)


def _play(settings: Settings, plan: Schedule, run: Run) -> None:
    """Plays the missing cells, one step a session."""
    from melete.bench import play
    from melete.gateway.entities import name_of

    ended: Counter[str] = Counter()
    solved: Counter[str] = Counter()
    playing = play.play(settings, plan)
    try:
        with run.timed("start"):
            first = next(playing, None)
        for step in run.steps(len(plan.cells), what="sessions"):
            session = first if step == 0 and first is not None else next(playing)
            variant = name_of(session.variant or "")
            ended[variant] += 1
            solved[variant] += bool(session.solved)
            run.log(step, {f"solved_{name}": solved[name] / count for name, count in ended.items()})
    finally:
        playing.close()
    run.result["sessions"] = dict(ended)
    run.result["solved"] = dict(solved)


def _report(settings: Settings, config: Config, run: Run) -> None:
    """Compares the variants, prints what was found and keeps it."""
    from melete.bench import artifacts, exports, report, rollups, tables
    from melete.store.database import connect

    with connect(settings.database) as connection:
        try:
            found = report.of_experiment(connection, config.experiment)
            rollups.refresh_experiment(connection, found["experiment"]["versions"])
        except ConfigError as error:  # one variant alone, or no card that two have played
            run.say(f"No comparison: {error.found}")
            return
    for comparison in found["comparisons"]:
        run.say(tables.lead(found, comparison))
        run.say(tables.text(tables.comparison(found, comparison)))
        for line in (*tables.sentences(found, comparison, SHOWN), *comparison["left_out"]):
            run.say(line)
    run.result["report"] = _short(found)
    if run.folder is None:
        return
    files = {
        name: exports.write(name, found, run.folder / f"experiment{exports.suffix(name)}")
        for name in ("html", "json", "markdown")
    }
    with connect(settings.database) as connection:
        for name, path in files.items():
            artifacts.keep(connection, f"report.{name}", path, found["experiment"]["id"])
    run.say(f"The report: {files['html']}")


def _short(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The differences alone, for the run's record."""
    kept = ("metric", "difference", "low", "high", "count", "shown", "verdict")
    return [
        {
            "before": comparison["before"],
            "after": comparison["after"],
            "differences": [{key: row[key] for key in kept} for row in comparison["differences"]],
        }
        for comparison in found["comparisons"]
    ]
