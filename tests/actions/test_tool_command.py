"""Tools that run a program: what a model says is text to the program and never a command."""

from __future__ import annotations

import ast
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import melete
from melete.actions.action import ToolAction
from melete.actions.attempt import ToolFailure
from melete.actions.command import arguments_of, command_tool
from melete.actions.tools import ToolSet
from melete.errors import ScenarioError

TEXTS: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
ECHO = [sys.executable, "-S", "-c", "import sys; print(sys.argv[1:])", "--", "{a}", "file={b}"]


def call(argv: list[str], arguments: dict[str, Any], folder: Path, timeout_s: float = 20) -> Any:
    one = command_tool("run", "Runs.", argv, TEXTS, timeout_s=timeout_s, folder=folder)
    return ToolSet([one]).call(ToolAction("run", arguments))


@pytest.mark.parametrize(
    "text", ["; touch harm", "$(touch harm)", "`touch harm`", "| tee harm", "a b 'c\" \n&& touch harm"]
)
def test_text_of_a_model_reaches_the_program_as_one_argument(text: str, tmp_path: Path) -> None:
    result = call(ECHO, {"a": text, "b": text}, tmp_path)
    assert ast.literal_eval(result.content) == ["--", text, f"file={text}"]
    assert list(tmp_path.iterdir()) == []


@given(st.dictionaries(st.sampled_from("ab"), st.text(st.characters(exclude_characters="\0"))))
def test_arguments_are_as_many_as_the_author_wrote_at_most(arguments: dict[str, str]) -> None:
    line = arguments_of(["prog", "--", "{a}", "x{b}"], arguments)
    assert line == [
        "prog",
        "--",
        *([arguments["a"]] if "a" in arguments else []),
        *[f"x{v}" for k, v in arguments.items() if k == "b"],
    ]


def test_value_that_would_be_an_option_is_refused() -> None:
    with pytest.raises(ToolFailure, match="may not begin"):
        arguments_of(["rm", "{a}"], {"a": "-rf"})
    assert arguments_of(["rm", "--", "{a}"], {"a": "-rf"}) == ["rm", "--", "-rf"]


def test_null_character_is_refused() -> None:
    with pytest.raises(ToolFailure, match="null"):
        arguments_of(["rm", "{a}"], {"a": "x\0y"})


def test_program_that_fails_is_a_failure_with_its_last_words(tmp_path: Path) -> None:
    result = call([sys.executable, "-S", "-c", "import sys; sys.exit('no such note')"], {}, tmp_path)
    assert not result.ok
    assert "ended with 1. no such note" in result.error


def test_program_that_hangs_is_killed_in_time(tmp_path: Path) -> None:
    started_s = time.monotonic()
    result = call([sys.executable, "-S", "-c", "import time; time.sleep(60)"], {}, tmp_path, timeout_s=0.3)
    assert result.error == "run did not answer within 0.3 s."
    assert time.monotonic() - started_s < 10


def test_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    assert "could not be started" in call(["no-such-program"], {}, tmp_path).error


@pytest.mark.parametrize("argv", ["rm -rf {a}", [], ["{a}", "x"], ["rm", "{c}"]])
def test_line_of_text_or_program_of_the_models_choice_is_refused(argv: Any, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError):
        command_tool("run", "Runs.", argv, TEXTS, timeout_s=1, folder=tmp_path)


def test_no_source_file_starts_a_shell() -> None:
    found = []
    for file in Path(melete.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if "shell" not in text and "os." not in text and "subprocess" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            shell = any(
                k.arg == "shell" and not (isinstance(k.value, ast.Constant) and not k.value.value)
                for k in node.keywords
            )
            if called in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput") or (
                shell and "subprocess" in called
            ):
                found.append(f"{file.name}:{node.lineno}: {called}")
    assert found == []
