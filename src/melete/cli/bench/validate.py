"""Check every file of the bench folder, and all that they refer to."""

from __future__ import annotations

import click


@click.command()
def command() -> int:
    """Check every file of the bench folder, and all that they refer to.

    All problems are told at once, each with its file, line and key. A variable that a provider needs and that is not
    set is a warning: it matters when the gateway starts.
    """
    from melete import settings
    from melete.bench.folder import Bench, check

    bench = Bench(settings.load())
    findings = check(bench)
    for problem in findings.problems:
        click.echo(f"{problem}" + (f" {problem.allowed}" if problem.allowed else ""), err=True)
    for warning in findings.warnings:
        click.echo(f"warning: {warning}", err=True)
    count = sum(findings.counts.values())
    told = ", ".join(
        f"{number} {kind}{'s' if number != 1 else ''}" for kind, number in findings.counts.items()
    )
    click.echo(f"{bench.settings.bench}: {count} files" + (f" ({told})" if told else ""))
    if not count and not findings.problems:
        click.echo("There is nothing here yet. Write an example with: melete bench init")
    if findings.problems:
        number = len(findings.problems)
        click.echo(f"{number} problem{'s' if number != 1 else ''}.", err=True)
        return 2
    return 0
