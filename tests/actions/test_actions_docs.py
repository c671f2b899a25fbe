"""`docs/actions.md`: its Python runs, its guard loads, its table names every rule type."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml

from melete import find
from melete.actions.guard import Guard

TEXT = (Path(__file__).parents[2] / "docs" / "actions.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code[:40].split("\n")[0])
def test_python_of_the_page_runs_and_prints_what_it_says(code: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "actions.md", "exec"), {"__name__": "page"})
    said = re.findall(r"print\(.*\)  # (.*)", code) or re.findall(r"^# (.*)", code, re.M)
    assert out.getvalue().splitlines() == said


def test_guard_of_the_page_loads() -> None:
    (text,) = blocks("yaml")
    assert Guard.from_dict(yaml.safe_load(text)).name == "shop"


def test_table_of_rules_names_every_rule_type_and_nothing_else() -> None:
    assert sorted(re.findall(r"^\| `(\w+)` \|", TEXT, re.M)) == find.names("melete.actions.rules")


def test_commands_of_the_page_exist() -> None:
    from melete.cli.trace import command

    named = {line.split()[2] for line in "".join(blocks("sh")).splitlines()}
    assert named == set(command.commands)
