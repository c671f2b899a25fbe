"""Every command that prints a table also prints JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from melete import cli
from melete.serve import deployment
from melete.settings import Settings

Call = Callable[..., tuple[int, str, str]]
FOLDER = Path(cli.__file__).parent


def test_every_command_file_that_prints_a_table_has_a_json_option() -> None:
    files = [file for file in FOLDER.rglob("*.py") if not file.name.startswith("_")]
    printing = [
        file for file in files if re.search(r"_show\.(table|pairs)\(", file.read_text(encoding="utf-8"))
    ]
    assert len(printing) > 8
    assert [file.name for file in printing if '"--json"' not in file.read_text(encoding="utf-8")] == []


def test_plan_of_a_process_is_printed_as_json(call: Call) -> None:
    code, out, _ = call("trial", "count", "--steps", "7", "--dry-run", "--json")
    assert code == 0
    plan = json.loads(out)
    assert plan["process"] == "trial.count"
    assert {"key": "steps", "value": 7, "given": True} in plan["values"]


def test_plan_of_a_job_file_is_printed_as_json(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "name: night\nprocesses: [{process: trial.count, name: one}, {process: trial.count, name: two}]\n"
    )
    code, out, _ = call("run", str(file), "--dry-run", "--json")
    assert code == 0
    assert [plan["step"] for plan in json.loads(out)] == ["one", "two"]


@pytest.mark.parametrize("command", [("trial", "count", "--json"), ("run", "job.yaml", "--json")])
def test_json_of_something_that_runs_is_refused(call: Call, command: tuple[str, ...]) -> None:
    code, _, err = call(*command)
    assert code == 2
    assert "--dry-run" in err


def test_deployed_agents_are_printed_as_json(call: Call, home: Settings) -> None:
    assert json.loads(call("agents", "deploy", "--list", "--json")[1]) == []
    guard = {"name": "open", "version": "1", "rules": []}
    deployment.write(
        home, deployment.Deployment("counter", "1.0", "echo", "", "", tools=(), guard=guard, source="r:1")
    )
    deployment.activate(home, "counter", "1.0")
    (row,) = json.loads(call("agents", "deploy", "--list", "--json")[1])
    assert (row["id"], row["in_use"], row["source"]) == ("counter_v1.0", True, "r:1")
