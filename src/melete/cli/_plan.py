"""Prints what `--dry-run` found: resolved config with given values marked, inputs, derived values with reasons."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from melete.cli import _show

if TYPE_CHECKING:
    from melete.jobs.plan import Plan


def as_json(plan: Plan, step: str | None = None) -> dict[str, Any]:
    """A plan for scripts; `step` is its name in a job."""
    return {"step": step, **dataclasses.asdict(plan)}


def print_plan(plan: Plan, step: str | None = None) -> None:
    """Prints a plan; `step` is its name in a job."""
    click.echo(f"{step + ': ' if step else ''}{plan.process} (dry run, nothing is written)\n")
    _show.table(
        ("config", "value", ""),
        [(item.key, item.value, "given" if item.given else "default") for item in plan.values],
    )
    if plan.inputs:
        click.echo()
        _show.table(("input", "named", "found"), [(item.key, item.ref, item.found) for item in plan.inputs])
    if plan.derived:
        click.echo()
        _show.table(
            ("derived", "value", "because"), [(item.name, item.value, item.reason) for item in plan.derived]
        )
