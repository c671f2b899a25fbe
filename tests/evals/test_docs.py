"""docs/evaluation.md: its Python runs, its suite loads, its table has every task."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from melete.evals import suite
from melete.evals import task as tasks

TEXT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
def test_python_of_the_guide_runs_and_says_what_it_should(capsys: pytest.CaptureFixture[str]) -> None:
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(block, {})
    out = capsys.readouterr().out
    assert "finished 42" in out
    assert "True 1" in out


def test_suite_of_the_guide_loads(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "mine.yaml"
    path.write_text(block)
    assert list(suite.load(str(path)).tasks) == ["toolcalls", "core"]


def test_guide_lists_every_task_and_suite() -> None:
    assert [
        name for name in [*tasks.names(), *suite.names()] if f"`{name}`" not in TEXT and name not in TEXT
    ] == []
