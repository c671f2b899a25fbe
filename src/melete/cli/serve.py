"""Serve models at an OpenAI-compatible URL, with a chat page."""

from __future__ import annotations

import sys

import click

from melete.errors import CheckpointError


@click.command("serve")
@click.option(
    "--model", "specs", multiple=True, metavar="REF",
    help="Run, checkpoint folder, transformers folder, hub id, or echo; NAME=REF names it. May be repeated. "
    "[default: latest, or none with --agent]",
)  # fmt: skip
@click.option(
    "--agent", "names", multiple=True, metavar="NAME",
    help="Deployed agent, NAME or NAME_vVERSION; may be repeated. Others can be loaded while it runs.",
)  # fmt: skip
@click.option("--agents", "all_agents", is_flag=True, help="All deployed agents.")
@click.option("--no-model", is_flag=True, help="Start without a model; one can be loaded later.")
@click.option(
    "--bare", is_flag=True, help="Serve the models only: no pages, no API over the store, no named tokens."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address; anything but loopback needs a token."
)
@click.option(
    "--port", default=8675, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--slots", default=32, show_default=True, type=click.IntRange(1), help="Answers written at once."
)
@click.option(
    "--queue", default=128, show_default=True, type=click.IntRange(0), help="Requests that may wait."
)
def command(
    specs: tuple[str, ...],
    names: tuple[str, ...],
    all_agents: bool,
    no_model: bool,
    bare: bool,
    host: str,
    port: int,
    device: str,
    slots: int,
    queue: int,
) -> None:
    """Serve models at an OpenAI-compatible URL, with a chat page.

    Pages are at / and what the store knows at /api/v1, also with --no-model. It is free on this machine until a token
    is made (melete token create) or MELETE_TOKEN is set; any address but loopback needs one. Stop with Ctrl-C.
    """
    from melete import find, settings
    from melete.cli import _first_token

    if no_model and (specs or names or all_agents):
        raise click.UsageError("--no-model goes with neither --model, --agent nor --agents.")
    if no_model and bare:
        raise click.UsageError("--bare serves models only, and --no-model none.")
    configured = settings.load()
    if not bare:
        _first_token.make(configured, host)
    if no_model:
        find.load("melete.api", "alone", "part of the API").run(
            configured, host, port, on_ready=click.echo, link=sys.stdout.isatty()
        )
        return
    server_room = find.load("melete.serve", "server", "part of the server")
    # A taken port is said before a model is loaded, which may take long.
    listener = server_room.bind(host, port, configured, named=not bare)
    models = find.load("melete.serve", "models", "part of the server")
    deployed = find.load("melete.serve", "deployment", "part of the server")
    names = (*names, *(deployed.names(configured) if all_agents else ()))
    specs = specs or (() if names else ("latest",))
    try:
        served = models.load_all(specs, configured, device=device, slots=slots, waiting=queue)
    except CheckpointError as error:
        alone = "Or serve only what the store knows: melete serve --no-model"
        raise CheckpointError(error.found, allowed=error.next_step, next_step=alone) from error
    agents = find.load("melete.serve", "agents", "part of the server").Agents(
        served, configured, device=device, slots=slots, waiting=queue
    )
    for name in names:
        agents.open(name)
    whole = find.load("melete.api", "whole", "part of the API")
    around = find.load("melete.api", "serving", "part of the API").Serving(lambda: served, lambda: agents)
    mounts = {} if bare else whole.mounts(configured, around)
    server = server_room.Server(served, configured, listener=listener, agents=agents, mounts=mounts)

    def say() -> None:
        first = next(iter(served))
        click.echo(f"Serving {', '.join(served)}")
        click.echo(f"  API   {server.url}/v1")
        if not bare:
            click.echo(f"  Open  {server.url}/")
            click.echo(f"  Chat  {server.url}/chat")
        if agents.listed():
            click.echo(f"  Act   {server.url}/v1/agents/{agents.listed()[0]['name']}/act")
        key = '-H "Authorization: Bearer $MELETE_TOKEN" ' if configured.token else ""
        body = f'{{"model": "{first}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
        click.echo(f"  Try   curl {server.url}/v1/chat/completions {key}-d '{body}'")
        if not bare:
            click.echo(f"  Store {server.url}{whole.PREFIX}/")
        link = server.link() if sys.stdout.isatty() else None
        if link is not None:
            click.echo(f"Sign in, once, with {link}")
        click.echo("Stop with Ctrl-C.")

    server.run(on_ready=say)
