"""A group of commands whose help lists each with its whole first sentence, wrapped and never cut."""

from __future__ import annotations

import click


class Group(click.Group):
    """Like click's own, which cuts a sentence that does not fit its line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, each.get_short_help_str(limit=1000)) for name, each in found if each is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
