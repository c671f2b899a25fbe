"""Commands made from process files: `melete llm pretrain --depth 4` from the fields of its config class.

A file `cli/<system>/<name>.py` that exports a click command `command` stands beside them as `melete <system> <name>`.
A process file may name one of its fields as `ARGUMENT`: its value may then be given without its flag.

The help of a system reads the first docstring line of each process file as text; only the process that is asked for is
imported. Values are handed to pydantic as they were typed, so a flag and a job file are checked by the same rules.
"""

from __future__ import annotations

import json
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from melete import find
from melete.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from melete.records import RunRecord


class System(click.Group):
    """The processes and the further commands of one system, found by file name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name, help=find.first_sentence(find.folder_of(f"melete.{name}") / "__init__.py") or None
        )
        self.package = f"melete.{name}.processes"
        self.commands_package = f"melete.cli.{name}"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the system's processes and further commands."""
        return sorted({*find.names(self.package), *find.names(self.commands_package)})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of one file; this imports it."""
        if name in find.names(self.commands_package):
            command: click.Command = find.load(self.commands_package, name, "command").command
            return command
        return process_command(f"{self.name}.{name}") if name in find.names(self.package) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Answers an unknown name with the closest known one."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            kind = "command" if find.names(self.commands_package) else "process"
            raise UnknownNameError(f"{self.name} {kind}", args[0], known)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists processes and commands without importing them."""
        for title, package in (("Processes", self.package), ("Commands", self.commands_package)):
            folder = find.folder_of(package)
            rows = [(name, find.first_sentence(folder / f"{name}.py")) for name in find.names(package)]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def process_command(process: str) -> click.Command:
    """The click command of one process."""
    module = find.process(process)

    argument: str | None = getattr(module, "ARGUMENT", None)

    def invoke(**given: Any) -> int:
        if argument is not None and (first := given.pop("run_argument")) is not None:
            given[argument] = first
        options = {key: given.pop(f"run_{key}") for key in ("name", "limit_batches", "dry_run", "json")}
        values = {
            key: parse_text(module.Config, key, value)
            for key, value in given.items()
            if value not in (None, ())
        }
        return run_process(process, values, **options)

    params: list[click.Parameter] = [option(key, field) for key, field in module.Config.model_fields.items()]
    if argument is not None:
        params.append(click.Argument(["run_argument"], metavar=f"[{argument.upper()}]", required=False))
    params += [
        click.Option(["--name", "run_name"], help="Name of the run, usable wherever its id is."),
        click.Option(
            ["--limit-batches", "run_limit_batches"], type=click.IntRange(1), help="The most steps per loop."
        ),
        click.Option(["--dry-run", "run_dry_run"], is_flag=True, help="Show the resolved config and end."),
        click.Option(["--json", "run_json"], is_flag=True, help="With --dry-run: print JSON."),
    ]
    return click.Command(
        process.partition(".")[2],
        params=params,
        callback=invoke,
        help=(module.__doc__ or "").strip(),
        short_help=(module.__doc__ or "").strip().split("\n")[0],
    )


def run_process(
    process: str,
    values: dict[str, Any],
    *,
    name: str | None,
    limit_batches: int | None,
    dry_run: bool,
    json: bool = False,
) -> int:
    """Runs a process, or shows what it would do; returns the exit code.

    Raises:
        ConfigError: a value is wrong, or JSON is asked of a run.
    """
    if json and not dry_run:
        from melete.errors import ConfigError

        raise ConfigError("--json goes with --dry-run.", next_step="Of a run: melete runs show RUN --json")
    if dry_run:
        from melete import settings
        from melete.cli import _plan, _show
        from melete.jobs.plan import plan

        made = plan(process, values, settings.load())
        _show.print_json(_plan.as_json(made)) if json else _plan.print_plan(made)
        return 0
    from melete.jobs.execute import Options, execute

    return finish(execute(process, values, Options(name=name, limit_batches=limit_batches)))


def finish(record: RunRecord) -> int:
    """Says how a run ended and returns the exit code: 130 after a stop."""
    from melete.records import RunState
    from melete.runs.progress import duration

    stopped = record.state is RunState.STOPPED
    if record.id != "silent":
        took = duration((record.ended_s or 0) - (record.started_s or 0))
        then = "continue with: melete runs resume" if stopped else "look at it with: melete runs show"
        click.echo(f"{record.state} in {took}; {then} {record.id}", err=True)
    return 130 if stopped else 0


def option(key: str, field: FieldInfo) -> click.Option:
    """The click option of one config field."""
    flag = "--" + key.replace("_", "-")
    kind = plain_type(field.annotation)
    shown = field.get_default(call_default_factory=True)
    default = "" if field.is_required() or shown in (None, "", []) else f"  [default: {shown}]"
    help_text = (field.description or "") + (" [required]" if field.is_required() else default)
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}", key], default=None, help=help_text)
    if get_origin(kind) is Literal:
        choices = click.Choice([str(value) for value in get_args(kind)])
        return click.Option([flag, key], type=choices, default=None, help=help_text)
    many = get_origin(kind) in (list, tuple)
    return click.Option(
        [flag, key], type=str, default=None, help=help_text, multiple=many, metavar=metavar(kind)
    )


def plain_type(annotation: Any) -> Any:
    """The type of a field without `Annotated` and `| None`."""
    if get_origin(annotation) is typing.Annotated:
        return plain_type(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [arg for arg in get_args(annotation) if arg is not type(None)]
        return plain_type(rest[0]) if len(rest) == 1 else annotation
    return annotation


def metavar(kind: Any) -> str:
    """Word for a value's type in the help."""
    if get_origin(kind) in (list, tuple):
        return metavar(get_args(kind)[0])
    return {int: "INTEGER", float: "NUMBER", str: "TEXT"}.get(kind, "TEXT")


def parse_text(config: type[BaseModel], key: str, value: Any) -> Any:
    """A typed value as it goes to pydantic; only mappings need reading, as JSON."""
    kind = plain_type(config.model_fields[key].annotation)
    if isinstance(value, tuple):
        return list(value)
    if (get_origin(kind) or kind) is dict:
        try:
            return json.loads(value)
        except ValueError as error:
            raise ConfigError(f"--{key.replace('_', '-')}: {value!r} is not JSON ({error}).") from error
    return value
