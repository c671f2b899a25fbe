"""Start and stop the gateway, through which all sessions reach their models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from melete.cli._gateway_echo import command as echo_command
from melete.cli._gateway_metrics import command as metrics_command
from melete.cli._group import Group

if TYPE_CHECKING:
    from melete.gateway.provider import Provider
    from melete.settings import Settings


@click.group(cls=Group)
def command() -> None:
    """Start and stop the gateway, through which all sessions reach their models.

    One LiteLLM proxy on this machine, started from the provider files of the bench folder. A session of `melete bench`
    gets a key for it; without one nothing passes.
    """


command.add_command(echo_command, "echo")
command.add_command(metrics_command, "metrics")


@command.command()
@click.option(
    "--provider", "names", multiple=True, metavar="NAME",
    help="Only these providers; may be repeated, and may name one that ships, such as echo. [default: all of the "
    "bench folder]",
)  # fmt: skip
@click.option("--without", multiple=True, metavar="NAME", help="Leave a provider out; may be repeated.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535),
    help="0 takes a free one. [default: 4000, or that of the gateway that is up]",
)  # fmt: skip
@click.option("--foreground", is_flag=True, help="Stay in the foreground, for systemd and containers.")
def up(
    names: tuple[str, ...], without: tuple[str, ...], host: str, port: int | None, foreground: bool
) -> None:
    """Start the gateway, or restart it if its providers or keys have changed."""
    from melete import settings as configured
    from melete.gateway import process

    settings = configured.load()
    providers = _chosen(settings, names, without)
    before = process.running(settings)
    if port is None:
        port = 0 if before else process.PORT
    if foreground:
        click.get_current_context().exit(process.serve(settings, providers, host=host, port=port))

    def say() -> None:
        click.echo("Starting LiteLLM, which takes some ten seconds ...", err=True)

    gateway = process.up(settings, providers, host=host, port=port, on_start=say)
    if before is None:
        click.echo(f"The gateway is up at {gateway.url}")
    elif before.pid == gateway.pid:
        click.echo(f"The gateway was up already, at {gateway.url}")
    else:
        click.echo(f"Something had changed: the gateway was restarted and is up at {gateway.url}")
    click.echo(f"  Models   {', '.join(gateway.models)}")
    click.echo("  Session  melete bench session start --variant NAME --task NAME")
    click.echo("  Stop     melete gateway down")


@command.command()
def down() -> None:
    """Stop the gateway; running answers get some seconds."""
    from melete import settings as configured
    from melete.gateway import process

    stopped = process.down(configured.load())
    click.echo("The gateway is down." if stopped else "No gateway was up.")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(as_json: bool) -> None:
    """Show whether the gateway is up, since when, and how often it had to be restarted."""
    import time

    from melete import settings as configured
    from melete.cli._show import age, pairs, print_json
    from melete.gateway import process

    settings = configured.load()
    found = process.status(settings)
    account = found.account
    if as_json:
        print_json({"state": found.state, "gateway": found.gateway, "account": account})
        return
    words = {"failed": "did not start"}.get(found.state, f"is {found.state}")
    click.echo(f"The gateway {words}.")
    if account is None or found.state == "down":
        click.echo("Start it with: melete gateway up")
        return
    pairs(
        [
            ("address", account.url),
            ("since", age(time.time() - account.started_s)),
            ("pid", f"{account.pid}, LiteLLM {account.litellm_pid or 'not running'}"),
            ("LiteLLM", f"{account.version}, up {account.start_s or '?'} s after its start"),
            (
                "restarts",
                f"{account.restarts}" + (f", last: it {account.last_exit}" if account.last_exit else ""),
            ),
            ("providers", ", ".join(account.providers)),
            ("models", ", ".join(account.models)),
            ("metrics", f"{account.metrics_url or '–'} and {account.url}/metrics"),
            ("log", process.log_file(settings)),
            *([("trouble", account.trouble)] if account.trouble else []),
        ]
    )


@command.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines, until Ctrl-C.")
@click.option(
    "-n", "--lines", default=40, show_default=True, type=click.IntRange(0), help="Lines to begin with."
)
def logs(follow: bool, lines: int) -> None:
    """Show the gateway's log, which holds nothing that clients or models said."""
    from melete import settings as configured
    from melete.gateway import logs as room
    from melete.gateway import process

    for line in room.follow(process.log_file(configured.load()), lines, on=follow):
        click.echo(line)


@command.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models(as_json: bool) -> None:
    """List the models of all provider files, with prices and whether their key is there."""
    import os

    from melete import settings as configured
    from melete.cli._show import print_json, table
    from melete.gateway import process, provider

    settings = configured.load()
    up_now = process.running(settings)
    rows = [
        {
            "model": name,
            "provider": one.name,
            "upstream": model.model or name,
            "usd_per_million_in": _million(model.input_cost_per_token),
            "usd_per_million_out": _million(model.output_cost_per_token),
            "missing": one.missing(os.environ),
            "up": up_now is not None and name in up_now.models,
        }
        for one in provider.own(settings)
        for name, model in one.models.items()
    ]
    if as_json:
        print_json(rows)
        return
    head = ("model", "provider", "upstream", "$/M in", "$/M out", "key", "state")
    cells = [
        [
            row["model"], row["provider"], row["upstream"], row["usd_per_million_in"], row["usd_per_million_out"],
            "missing" if row["missing"] else "ok", "up" if row["up"] else "",
        ]
        for row in rows
    ]  # fmt: skip
    table(head, cells, right=("$/M in", "$/M out"))
    if not rows:
        click.echo(f"No provider file in {settings.bench / 'providers'}.")
        click.echo(f"Shipped examples, for --provider NAME: {', '.join(provider.shelf(settings).names())}")


@command.command()
def install() -> None:
    """Install LiteLLM, in the version that is pinned, into an environment of its own in the home folder."""
    from melete import settings as configured
    from melete.gateway import program

    settings = configured.load()
    click.echo(f"Installing LiteLLM {program.pinned_version()}, some 600 MB ...", err=True)
    made = program.install(settings)
    click.echo(f"LiteLLM {made.version} is in {settings.gateway / 'env'}.")


def _chosen(settings: Settings, names: tuple[str, ...], without: tuple[str, ...]) -> list[Provider]:
    """The providers to start with; one of kind melete without an address is left out aloud, unless it was named."""
    from melete.gateway import provider

    own = provider.own(settings) if not names else [provider.load(settings, name) for name in names]
    left_out = {*without}
    for one in own:
        if not names and one.kind == "melete" and one.base_url is None:
            click.echo(f"Left out {one.name}: its models are served by `melete bench run`.", err=True)
            left_out.add(one.name)
    return [one for one in own if one.name not in left_out]


def _million(price: float | None) -> float | None:
    return None if price is None else round(price * 1e6, 6)
