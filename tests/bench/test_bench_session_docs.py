"""The page on sessions: its files are valid, its commands exist, its table names every checker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from melete import documents, find
from melete.bench.folder import Bench
from melete.cli._root import root
from melete.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "bench" / "sessions.md").read_text(encoding="utf-8")
FILES = re.findall(r"```yaml\n# (\w+)/(\w+)\.yaml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = sorted(set(re.findall(r"^(?:eval \"\$\()?(melete [^\n\")#]*)", PAGE, re.MULTILINE)))


@pytest.mark.parametrize(("folder", "name", "text"), FILES, ids=[f"{kind}/{name}" for kind, name, _ in FILES])
def test_file_in_the_docs_is_valid(home: Settings, tmp_path: Path, folder: str, name: str, text: str) -> None:
    shelf = {one.folder.name: one for one in Bench(home).shelves}[folder]
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)

    assert documents.check(path, shelf.model, shelf.kind, name=name)[1] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_command_in_the_docs_exists_with_its_options(command: str) -> None:
    import click

    words, group = command.split()[1:], root
    while isinstance(group, click.Group):
        group = group.get_command(click.Context(group), words.pop(0))  # type: ignore[assignment]
    known = {name for parameter in group.params for name in parameter.opts}

    assert {
        word for word in words[: words.index("--") if "--" in words else None] if word.startswith("--")
    } <= known


def test_table_of_checkers_in_the_docs_is_whole() -> None:
    assert set(re.findall(r"^\| `(\w+)` \| ", PAGE, re.MULTILINE)) == set(find.names("melete.bench.checkers"))
