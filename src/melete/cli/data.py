"""List, add, verify and describe datasets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from melete.cli._group import Group

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=Group)
def command() -> None:
    """List, add, verify and describe datasets.

    NAME is a dataset's name, `name@version`, or the path of a folder or file of your own.
    """


@command.command("list")
@JSON
def list_datasets(as_json: bool) -> None:
    """All known datasets, and whether they are at hand."""
    from melete import settings
    from melete.cli import _show
    from melete.datasets import registry

    loaded = settings.load()
    rows = [_summary(registry.describe(name, loaded), loaded) for name in registry.names(loaded)]
    if as_json:
        _show.print_json(rows)
        return
    keys = ["name", "version", "kind", "mb", "licence", "here"]
    _show.table(keys, [[row[key] for key in keys] for row in rows], right=("mb",))


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", help="Name, made from the path by default.")
@click.option("--version", help="Version, the next whole number by default.")
@click.option("--licence", default="not stated", show_default=True, help="Licence, such as MIT or CC-BY-4.0.")
@click.option("--source", default="", help="Where it comes from: a repository, a page, a person.")
@click.option("--description", help="What it is, in a sentence.")
def add(
    path: Path, name: str | None, version: str | None, licence: str, source: str, description: str | None
) -> None:
    """Copy a folder or file into the home folder as a dataset of its own."""
    from melete import settings
    from melete.datasets import adding

    loaded = settings.load()
    manifest = adding.add(
        path, loaded, name=name, version=version, licence=licence, source=source, description=description
    )
    click.echo(
        f"Added {manifest.id}: {manifest.kind}, {len(manifest.files)} files, {manifest.bytes / 1e6:,.2f} MB."
    )
    click.echo(f"Look at it with: melete data card {manifest.name}")


@command.command()
@click.argument("name", required=False)
@JSON
def verify(name: str | None, as_json: bool) -> int:
    """Compare the files of one dataset, or of all that are at hand, with their checksums."""
    from melete import settings
    from melete.cli import _show
    from melete.datasets import registry, verified

    loaded = settings.load()
    verified.forget(loaded)
    everything = [known for known in registry.names(loaded) if _here(known, loaded)]
    rows = [_verify(one, loaded) for one in ([name] if name else everything)]
    if as_json:
        _show.print_json(rows)
    else:
        _show.table(
            ["name", "files", "result"], [[row[key] for key in ("name", "files", "result")] for row in rows]
        )
    return 0 if all(row["result"] == "ok" for row in rows) else 3


@command.command()
@click.argument("name")
def card(name: str) -> None:
    """Show the data card: counts, licence and what it asks, source, samples, lengths."""
    from melete import settings
    from melete.datasets import card as cards

    text = cards.render(name, settings.load())
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(text))
    else:
        click.echo(text, nl=False)


def _summary(manifest: Any, settings: Any) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "kind": manifest.kind,
        "mb": round(manifest.bytes / 1e6, 2) if manifest.files else None,
        "licence": manifest.licence,
        "here": "yes" if _here(manifest.name, settings) else "no",
        "description": manifest.description,
    }


def _here(name: str, settings: Any) -> bool:
    from melete import find
    from melete.datasets import registry

    if name in find.names(registry.GENERATED):
        return True
    return registry.at_hand(registry.describe(name, settings), settings) is not None


def _verify(name: str, settings: Any) -> dict[str, Any]:
    """Checks every file of a dataset by reading it again; a failure is a row, not the end."""
    from melete.datasets import registry
    from melete.errors import DatasetError

    dataset = registry.open(name, settings)
    problems = []
    for entry in dataset.manifest.files:
        try:
            dataset.path(entry.path)
        except DatasetError as error:
            problems.append(str(error))
    return {
        "name": dataset.manifest.id,
        "files": len(dataset.manifest.files),
        "result": "\n".join(problems) or "ok",
    }
