"""The front door: quick, quiet in a pipe, helpful with wrong names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from melete.cli import _front
from trial_runs import TRIAL

Melete = Callable[..., "subprocess.CompletedProcess[str]"]
HEAVY = (
    "torch", "numpy", "pydantic", "click", "rich", "yaml", "sqlalchemy", "alembic", "jinja2", "asyncio", "fastapi",
    "transformers", "psutil", "json", "re", "importlib.metadata",
)  # fmt: skip


def modules_after(*args: str) -> set[str]:
    """Names in `sys.modules` after `melete ARGS`, without those that Python itself loads at its start."""
    program = (
        f"import sys; before = set(sys.modules); sys.argv[1:] = {list(args)!r}\n"
        "from melete.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('MODULES', *sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    (line,) = (line for line in child.stderr.splitlines() if line.startswith("MODULES "))
    return set(line.split()[1:])


def test_front_text_is_the_help_of_the_root_command() -> None:
    written = _front.FRONT.read_text(encoding="utf-8")
    here = str(Path(TRIAL).parent)
    program = f"import melete; assert {here!r} not in melete.__path__"
    program += "; from melete.cli import _front; print(_front.text(), end='')"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert written == shown, "a command or process changed: run `python -m melete.cli._front`"


@pytest.mark.parametrize("args", [("--help",), ("-h",), (), ("--version",)])
def test_first_lane_imports_nothing_heavy(args: tuple[str, ...]) -> None:
    loaded = modules_after(*args)
    assert loaded & {*HEAVY} == set()
    assert loaded <= {"melete", "melete.__main__", "melete.cli"}


def test_runs_list_loads_no_library_of_the_systems(home: object) -> None:
    loaded = modules_after("runs", "list")
    assert loaded & {"torch", "numpy", "transformers", "fastapi", "sqlalchemy", "pydantic", "jinja2"} == set()


@pytest.mark.parametrize(
    "args", [("llm", "--help"), ("runs", "--help"), ("run", "--help"), ("schema", "--help")]
)
def test_help_of_a_command_loads_no_torch(args: tuple[str, ...]) -> None:
    heavy = {"torch", "numpy", "transformers", "fastapi", "sqlalchemy", "pydantic", "rich"}
    assert modules_after(*args) & heavy == set()


@pytest.mark.parametrize("args", ["--help", "llm --help", "schema"])
def test_output_into_a_reader_that_goes_away_ends_quietly(args: str) -> None:
    command = f"{sys.executable} -m melete {args} | head -n 1"
    child = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert child.stderr == ""
    assert child.stdout.count("\n") == 1
    assert child.returncode == 0


@pytest.mark.parametrize(
    ("args", "closest"), [("rns", "runs"), ("tral", "trial"), ("trial cuont", "count"), ("runs lst", "list")]
)
def test_wrong_name_answers_with_the_closest(
    call: Callable[..., tuple[int, str, str]], args: str, closest: str
) -> None:
    code, out, err = call(*args.split())
    assert (code, out) == (2, "")
    assert f"Did you mean '{closest}'?" in err
    assert "Traceback" not in err


def test_version_is_the_package_version(melete: Melete) -> None:
    from melete import __version__

    assert melete("--version").stdout == f"melete {__version__}\n"
