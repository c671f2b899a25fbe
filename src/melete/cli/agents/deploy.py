"""Put what practice made behind a name, go back a version, or write a folder that starts elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from melete.settings import Settings


@click.command()
@click.argument("ref", metavar="[RUN|NAME]", default="")
@click.option("--name", default="", help="Name of the agent; the scenario's by default.")
@click.option("--version", default="", help="MAJOR.MINOR; the next minor one by default.")
@click.option("--scenario", default="", help="Scenario, where the run practised none.")
@click.option("--copy", "copy_weights", is_flag=True, help="Copy the weights into the deployment.")
@click.option(
    "--url", default="http://127.0.0.1:8675", show_default=True, help="Running server to load it into."
)
@click.option("--list", "listing", is_flag=True, help="List what is deployed, of all agents or of NAME.")
@click.option("--json", "as_json", is_flag=True, help="With --list: print JSON.")
@click.option("--rollback", is_flag=True, help="Go back to the version of NAME before the one in use.")
@click.option("--to", "kind", type=click.Choice(["docker"]), help="Write a folder that starts elsewhere.")
@click.option("--out", type=click.Path(path_type=Path), help="That folder; the version's name by default.")
def command(
    ref: str,
    name: str,
    version: str,
    scenario: str,
    copy_weights: bool,
    url: str,
    listing: bool,
    as_json: bool,
    rollback: bool,
    kind: str | None,
    out: Path | None,
) -> None:
    """Put what practice made behind a name: model, prompt, tools, guard and success criteria.

    RUN is a run of practice or a checkpoint: it becomes the next version of the agent and is put into use. NAME is an
    agent that is deployed already, or NAME_vVERSION one of its versions: it is put into use again. A server that is
    running at --url takes it over at once; one that is started later finds it with: melete serve --agent NAME
    """
    from melete import settings as all_settings
    from melete.errors import ConfigError

    settings = all_settings.load()
    if listing:
        _list(settings, ref, as_json)
        return
    if not ref:
        raise ConfigError(
            "What is to be deployed?",
            next_step="Such as: melete agents deploy latest --name customer_support",
        )
    if rollback:
        _roll_back(settings, ref, url)
        return
    made = _deployed(settings, ref) or _made(settings, ref, name, version, scenario, copy_weights)
    if kind == "docker":
        from melete.agents import docker

        folder = out or Path(made)
        docker.write(settings, made, folder)
        click.echo(f"Wrote {made} to {folder}; start it with: sh {folder / 'start.sh'}")
        return
    _activate(settings, made, url)


def _deployed(settings: Settings, ref: str) -> str | None:
    """The version that a name of a deployment means; None if it names none, so it should be a run."""
    from melete.errors import UnknownNameError
    from melete.runs import refs
    from melete.serve import deployment

    if deployment.FULL.fullmatch(ref):
        return deployment.load(settings, ref).id
    if ref not in deployment.names(settings):
        return None
    try:
        refs.run(settings, ref)
    except UnknownNameError:
        return deployment.load(settings, ref).id
    return None  # a run has the same name, and a new version of it is meant


def _made(settings: Settings, ref: str, name: str, version: str, scenario: str, copy_weights: bool) -> str:
    from melete.agents import deploy

    made = deploy.deploy(
        ref, settings, name=name, version=version, scenario=scenario, copy_weights=copy_weights
    )
    click.echo(f"Deployed {made.id} from {made.source}: {made.folder}")
    return made.id


def _activate(settings: Settings, made: str, url: str) -> None:
    from melete.agents import deploy
    from melete.errors import ServerError
    from melete.serve import deployment

    chosen = deployment.load(settings, made)
    deployment.activate(settings, chosen.name, chosen.version)
    started_s = time.perf_counter()
    try:
        said = deploy.activate_at(url, chosen.name, chosen.version, settings.token)
    except ServerError as error:
        click.echo(f"{error.found}\nIt is in use from the next start: melete serve --agent {chosen.name}")
        return
    _say(said, url, (time.perf_counter() - started_s) * 1000)


def _roll_back(settings: Settings, name: str, url: str) -> None:
    from melete.agents import deploy
    from melete.errors import ServerError
    from melete.serve import deployment

    try:
        said = deploy.roll_back_at(url, name, settings.token)
    except ServerError:
        click.echo(
            f"{name} is back at version {deployment.roll_back(settings, name)}, from the next start on."
        )
        return
    _say(said, url, said["loaded_ms"])


def _say(said: dict[str, Any], url: str, took_ms: float) -> None:
    base = url.rstrip("/").removesuffix("/v1")
    click.echo(f"{said['id']} is in use at {base} ({took_ms:.0f} ms)")
    click.echo(f"  API   {base}/v1  (model {said['name']})")
    click.echo(f"  Act   {base}/v1/agents/{said['name']}/act")
    click.echo(f"  State {base}/v1/agents/{said['name']}")


def _list(settings: Settings, name: str, as_json: bool) -> None:
    from melete.cli import _show
    from melete.serve import deployment

    if name and name not in deployment.names(settings):
        raise deployment.unknown(settings, name)
    rows: list[dict[str, Any]] = []
    for agent in [name] if name else deployment.names(settings):
        used = deployment.active(settings, agent)
        for version in deployment.versions(settings, agent):
            made = deployment.load(settings, f"{agent}_v{version}")
            rows.append(
                {
                    "id": made.id, "in_use": version == used, "scenario": made.scenario, "source": made.source,
                    "created_s": made.created_s,
                }
            )  # fmt: skip
    if as_json:
        _show.print_json(rows)
        return
    if not rows:
        click.echo("No agent is deployed yet. Deploy one with: melete agents deploy RUN")
        return
    cells = [
        (
            row["id"],
            "in use" if row["in_use"] else "",
            row["scenario"],
            row["source"],
            time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created_s"])),
        )
        for row in rows
    ]
    _show.table(("deployment", "", "scenario", "from", "when"), cells)
