"""The example agents run as they stand, and the guide to frameworks names what there is."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from melete.agents import frameworks
from melete.errors import MissingExtraError
from melete.settings import Settings

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "agents").glob("*_agent.py"))
GUIDE = ROOT / "docs" / "frameworks.md"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_plays_a_task_and_says_what_came_of_it(
    path: Path, home: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = path.stem.removesuffix("_agent")
    try:
        frameworks.load(name)
    except MissingExtraError:
        pytest.skip(f"{name} is not installed here")
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    told = capsys.readouterr().out
    assert told.startswith("system: ")
    assert "\nuser: " in told
    assert re.search(r"\nok: \d+ of \d+ calls succeeded, not solved, reward -?\d", told)


def test_every_framework_has_an_example_and_stands_in_the_guide() -> None:
    assert [path.stem for path in EXAMPLES] == [f"{name}_agent" for name in frameworks.names()]
    text = GUIDE.read_text(encoding="utf-8")
    assert [name for name in frameworks.names() if f"`{name}`" not in text] == []


def test_python_of_the_guide_is_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        compile(block, str(GUIDE), "exec")
