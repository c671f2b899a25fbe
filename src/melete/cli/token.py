"""Make, list and revoke the tokens that open this lab."""

from __future__ import annotations

import time

import click

from melete.cli._group import Group


@click.group("token", cls=Group)
def command() -> None:
    """Make, list and revoke the tokens that open this lab."""


@command.command("create")
@click.argument("name")
@click.option(
    "--role", required=True, type=click.Choice(["read", "operate", "admin"]),
    help="read looks; operate also uses models, submits and steers jobs; admin everything.",
)  # fmt: skip
@click.option("--days", type=float, metavar="N", help="Ends after this many days. [default: never]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create(name: str, role: str, days: float | None, as_json: bool) -> None:
    """Make a token; it is shown this once.

    From the first token on, the server of this home asks for one on this machine too.
    """
    from melete import settings
    from melete.cli import _show
    from melete.store import database, tokens

    with database.connect(settings.load().database) as connection:
        made, secret = tokens.make(connection, name, role, by=tokens.COMMAND, now_s=time.time(), days=days)
        tokens.write_down(connection, "token.create", made.name, time.time())
    if as_json:
        _show.print_json({**made.__dict__, "token": secret})
        return
    click.echo(secret)
    click.echo(f"The token {made.name!r} ({role}); it is not shown again.", err=True)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_tokens(as_json: bool) -> None:
    """List the tokens that have not been revoked."""
    from melete import settings
    from melete.cli import _show
    from melete.store import database, tokens

    with database.connect(settings.load().database) as connection:
        found = tokens.listed(connection)
    if as_json:
        _show.print_json(found)
        return
    if not found:
        click.echo("No token yet. Make one with: melete token create NAME --role admin")
        return
    now_s = time.time()
    rows = [
        (
            token.name,
            token.role,
            f"{token.prefix}…",
            _show.age(now_s - token.created_s),
            _show.age(now_s - token.last_used_s) if token.last_used_s else "never",
            "never"
            if token.expires_s is None
            else (f"in {_show.age(token.expires_s - now_s)}" if token.live(now_s) else "has ended"),
        )
        for token in found
    ]
    _show.table(("name", "role", "begins with", "made", "used", "ends"), rows)


@command.command("revoke")
@click.argument("name")
def revoke(name: str) -> None:
    """End a token, and sign out the browsers that signed in with it."""
    from melete import settings
    from melete.store import database, tokens

    with database.connect(settings.load().database) as connection:
        token = tokens.named(connection, name)
        signed_out = tokens.revoke(connection, token, time.time())
        tokens.write_down(connection, "token.delete", token.name, time.time())
    browsers = f"; {signed_out} browser{'s' * (signed_out != 1)} signed out" if signed_out else ""
    click.echo(f"The token {token.name!r} opens nothing any more{browsers}.")
