"""Print the JSON schema of a job file or of one process."""

from __future__ import annotations

import click


@click.command()
@click.argument("process", required=False)
def command(process: str | None) -> None:
    """Print the JSON schema of a job file, or of the config of one PROCESS such as llm.pretrain."""
    from melete.cli import _show
    from melete.jobs import schema

    _show.print_json(schema.process(process) if process else schema.job_file())
