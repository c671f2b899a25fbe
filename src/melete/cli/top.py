"""Watch the lab in the terminal: runs, jobs, curves and logs as they happen."""

from __future__ import annotations

import sys

import click


@click.command("top")
@click.option("--url", help="The server to watch. [default: the one of this home that `melete up` started]")
@click.option("--token", help="What the server asks for. [default: MELETE_TOKEN]")
def command(url: str | None, token: str | None) -> int:
    """Watch the lab in the terminal: runs, jobs, curves and logs as they happen; also over SSH, also another machine's.

    The key ? shows the keys.
    """
    from melete import find, settings
    from melete.errors import ConfigError, MissingExtraError, ServerError
    from melete.jobs import lab

    configured = settings.load()
    if url is None:
        now = lab.alive(configured)
        if now is None:
            raise ServerError(
                f"No server of this home ({configured.home}) is up.",
                next_step="Start it with: melete up\nOr name one: melete top --url http://127.0.0.1:8675",
            )
        url = now.plan.url
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url {url!r} is no address.", allowed="Such as http://127.0.0.1:8675")
    if not sys.stdout.isatty():
        raise ConfigError("melete top needs a terminal.", next_step="For a script: melete status --json")
    token = token or configured.token
    try:
        from melete.api.client import Client
        from melete.ui.top.app import Top
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        raise MissingExtraError(library, find.EXTRA_OF.get(library, "ui")) from error
    with Client(url, token) as client:
        client.status()  # says what is wrong before the screen is taken
    Top(url, token).run()
    return 0
