"""The root command: one lazy group whose members are the files of `melete.cli` and the systems that have processes.

A file `cli/X.py` that exports a click command `command` is `melete X`; a folder `melete/S/processes` is `melete S` with
one command per file, and a file `cli/S/Y.py` is `melete S Y` beside them. Nothing is listed anywhere and only what is
asked for is imported. Help texts are the first lines of docstrings, read as text.
"""

from __future__ import annotations

import os
import sys

import click

from melete import find
from melete.errors import MeleteError, UnknownNameError


class Root(click.Group):
    """Commands by file name, systems by folder name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands and systems."""
        return sorted({*find.names("melete.cli"), *systems()})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Imports the command that was asked for."""
        if name in systems():
            from melete.cli._process import System

            return System(name)
        if name in find.names("melete.cli"):
            command: click.Command = find.load("melete.cli", name, "command").command
            return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Answers an unknown name with the closest known one."""
        name = args[0]
        if name not in self.list_commands(ctx) and not name.startswith("-"):
            raise UnknownNameError("command", name, self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists systems with their processes, and commands, without importing them."""
        processes = [
            (
                system,
                ", ".join((*find.names(f"melete.{system}.processes"), *find.names(f"melete.cli.{system}"))),
            )
            for system in systems()
        ]
        folder = find.folder_of("melete.cli")
        commands = [(name, find.first_sentence(folder / f"{name}.py")) for name in find.names("melete.cli")]
        for title, rows in (("Systems and their processes", processes), ("Commands", commands)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def systems() -> list[str]:
    """Systems that have at least one process."""
    return sorted({name.partition(".")[0] for name in find.processes()})


@click.group(
    "melete", cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(message="melete %(version)s", package_name="melete")
def root() -> None:
    """A lab on one machine in which models practise acting and prove that they got better.

    Start with `melete llm pretrain --dry-run`, or with a job file and `melete run`. Each command has --help.
    """


def run(args: list[str]) -> int:
    """Runs the command line and returns its exit code; a `MeleteError` becomes one message on stderr."""
    # Read by OpenMP when torch is loaded: threads that wait long for a busy core halve the speed of both programs.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        with find.named_extras():
            result = root.main(args, prog_name="melete", standalone_mode=False)
        sys.stdout.flush()
    except MeleteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader went away; what is still buffered must not fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0
