"""Every process keeps the contract of `melete.runs.process`: docstring, config, example, help, a quick import.

A new process is tested by being there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from melete import find
from melete.errors import CheckpointError, GatewayError, UnknownNameError
from melete.gateway import program
from melete.jobs import schema
from melete.jobs.execute import Options, execute
from melete.records import RunState
from melete.runs.process import ProcessConfig, config_class, parse_config
from melete.settings import Settings

PROCESSES = find.processes()
Call = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", PROCESSES)
def test_process_has_a_sentence_of_help(name: str) -> None:
    doc = find.process(name).__doc__ or ""
    assert doc.split("\n")[0].endswith(".")
    assert 10 < len(doc.split("\n")[0]) <= 120


@pytest.mark.parametrize("name", PROCESSES)
def test_process_config_is_flat_with_a_description_for_each_field(name: str) -> None:
    config = config_class(name)
    assert issubclass(config, ProcessConfig)
    without = [key for key, field in config.model_fields.items() if not field.description]
    assert without == []


@pytest.mark.parametrize("name", PROCESSES)
def test_process_example_is_a_good_config(name: str) -> None:
    example = find.process(name).EXAMPLE
    config = parse_config(name, example)
    assert {key: getattr(config, key) for key in example} == example


@pytest.mark.parametrize("name", PROCESSES)
def test_process_help_has_a_flag_for_each_field(name: str, call: Call) -> None:
    code, out, _ = call(*name.split("."), "--help")
    assert code == 0
    for key in config_class(name).model_fields:
        assert "--" + key.replace("_", "-") in out


@pytest.mark.parametrize("name", PROCESSES)
def test_process_schema_is_json_with_all_fields(name: str) -> None:
    assert set(json.loads(json.dumps(schema.process(name)))["properties"]) == set(
        config_class(name).model_fields
    )


def test_process_files_load_nothing_heavy() -> None:
    program = (
        "import sys, melete_trial; from melete import find\n"
        "for name in find.processes():\n"
        "    find.process(name)\n"
        "    heavy = {'torch', 'transformers', 'fastapi', 'numpy', 'sqlalchemy'} & set(sys.modules)\n"
        "    assert not heavy, (name, heavy)"
    )
    command = [sys.executable, "-c", program]
    child = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    assert child.returncode == 0, child.stderr


@pytest.mark.slow
def test_examples_of_all_processes_run_in_one_home(home: Settings) -> None:
    """An example that names `latest` may need the run of another one, so they run in rounds until none is left."""
    left = list(PROCESSES)
    try:
        program.find(home)
    except GatewayError:  # LiteLLM has an environment of its own, which need not have been made
        left.remove("bench.run")
    while left:
        waiting = []
        for name in left:
            try:
                record = execute(name, find.process(name).EXAMPLE, Options(home))
            except (CheckpointError, UnknownNameError):
                waiting.append(name)
                continue
            assert record.state is RunState.SUCCEEDED
            assert (home.runs / record.id / "report.html").stat().st_size > 1000
        assert len(waiting) < len(left), f"no example of these can run: {waiting}"
        left = waiting
