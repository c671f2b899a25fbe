"""Serve models at an OpenAI-compatible URL, with a chat page."""

from __future__ import annotations

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
@click.option("--no-model", is_flag=True, help="Serve the API over the store only.")
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
    host: str,
    port: int,
    device: str,
    slots: int,
    queue: int,
) -> None:
    """Serve models at an OpenAI-compatible URL, with a chat page.

    What the store knows (sessions, requests, comparisons) is at /api/v1, also with --no-model.
    Set MELETE_TOKEN to ask clients for a token; it is compulsory for any address but loopback. Stop with Ctrl-C.
    """
    from melete import find, settings

    if no_model and (specs or names or all_agents):
        raise click.UsageError("--no-model goes with neither --model, --agent nor --agents.")
    configured = settings.load()
    if no_model:
        find.load("melete.api", "alone", "part of the API").run(configured, host, port, on_ready=click.echo)
        return
    server_room = find.load("melete.serve", "server", "part of the server")
    # A taken port is said before a model is loaded, which may take long.
    listener = server_room.bind(host, port, configured)
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
    mounts = whole.mounts(configured)
    server = server_room.Server(served, configured, listener=listener, agents=agents, mounts=mounts)

    def say() -> None:
        first = next(iter(served))
        click.echo(f"Serving {', '.join(served)}")
        click.echo(f"  API   {server.url}/v1")
        click.echo(f"  Chat  {server.url}/chat")
        if agents.listed():
            click.echo(f"  Act   {server.url}/v1/agents/{agents.listed()[0]['name']}/act")
        key = '-H "Authorization: Bearer $MELETE_TOKEN" ' if configured.token else ""
        body = f'{{"model": "{first}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
        click.echo(f"  Try   curl {server.url}/v1/chat/completions {key}-d '{body}'")
        click.echo(f"  Store {server.url}{whole.PREFIX}/")
        click.echo("Stop with Ctrl-C.")

    server.run(on_ready=say)
