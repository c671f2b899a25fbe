"""The scripted upstream: a provider without a model, to try the gateway with; part of `melete gateway`."""

from __future__ import annotations

import click


@click.command("echo")
@click.option(
    "--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option(
    "--script", metavar="NAME|FILE", help="What it plays: a YAML file, or one that ships. [default: repeat]"
)
def command(port: int, script: str | None) -> None:
    """Serve a scripted upstream that speaks OpenAI's and Anthropic's APIs, without any model.

    It repeats the last message, or plays a script with text, tool calls, delays, errors and cut streams. Stop with
    Ctrl-C.
    """
    from melete import find

    server = find.load("melete.gateway.echo", "server", "part of the scripted upstream")
    scripts = find.load("melete.gateway.echo", "script", "part of the scripted upstream")
    played = scripts.read(script) if script else scripts.Script()
    echo = server.Echo(played, port=port)

    def say() -> None:
        click.echo(f"Scripted upstream at {echo.url}, models: {', '.join(played.models)}")
        click.echo(f"  OpenAI     {echo.url}/v1")
        click.echo(f"  Anthropic  {echo.url}")
        click.echo("Stop with Ctrl-C.")

    echo.run(on_ready=say)
