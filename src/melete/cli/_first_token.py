"""The first token of a home whose server can be reached from elsewhere, made and shown to whoever starts it.

Without a terminal nothing is made: a log is no place for a secret, and `bind` says what to do.
"""

from __future__ import annotations

import sys
import time

import click

from melete import find
from melete.settings import Settings


def make(settings: Settings, host: str) -> None:
    """Makes the token and prints it, once, where other machines may come and none was ever made.

    Args:
        settings: the home.
        host: address that the server is to listen on.
    """
    from melete.store import database, tokens

    listen = find.load("melete.serve", "listen", "part of the server")
    if listen.is_loopback(host) or settings.token or not sys.stdout.isatty() or listen.has_named(settings):
        return
    with database.connect(settings.database) as connection:
        _, secret = tokens.make(connection, "first", "admin", by=tokens.COMMAND, now_s=time.time())
        tokens.write_down(connection, "token.create", "first", time.time())
    click.echo(f"This lab can be reached from other machines now, so it has a token:\n\n  {secret}\n")
    click.echo(
        "It is not shown again. Others are made with: melete token create NAME --role read|operate|admin"
    )
