"""Checkers: what counts as solved, and that what a harness left behind cannot make itself count."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from melete import find
from melete.bench import checkers
from melete.bench.checkers import Evidence, Verdict
from melete.errors import ConfigError

TEST = """\
from greet import greet
def test_one(): assert greet("Eva") == "Hello, Eva!"
def test_two(): assert greet("") == ""
"""
GOOD = "def greet(name): return f'Hello, {name}!' if name else ''\n"


def judged(work: Path, name: str, output: str | None = None, **options: Any) -> Verdict:
    verdict = checkers.run({name: options}, Evidence(work, output))
    assert verdict is not None
    return verdict


@pytest.mark.parametrize("name", find.names("melete.bench.checkers"))
def test_checker_file_has_options_and_a_check(name: str) -> None:
    module = find.load("melete.bench.checkers", name, "checker")

    assert module.Options.model_config["extra"] == "forbid"
    assert callable(module.check)


def test_pytest_of_a_right_solution_is_solved(tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text(GOOD)

    assert judged(tmp_path, "pytest", tests={"test_greet.py": TEST}) == Verdict(
        True, 1.0, "2 of 2 tests passed"
    )


def test_pytest_of_half_a_solution_gives_its_share(tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text("def greet(name): return f'Hello, {name}!'\n")

    assert judged(tmp_path, "pytest", tests={"test_greet.py": TEST}) == Verdict(
        False, 0.5, "1 of 2 tests passed"
    )


CHEATS = {
    "leaves at its import": {"greet.py": "import os; os._exit(0)"},
    "ends the program at its import": {"greet.py": "import sys; sys.exit(0)"},
    "switches tests off": {"greet.py": "x = 1", "conftest.py": "collect_ignore_glob = ['*']"},
    "skips all": {"greet.py": "import pytest; pytest.skip('no', allow_module_level=True)"},
    "its own tests": {"greet.py": "x = 1", "test_greet.py": "def test_one(): pass\ndef test_two(): pass\n"},
    "options": {"greet.py": "x = 1", "pytest.ini": "[pytest]\naddopts = --collect-only\n"},
    "nothing": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("how", CHEATS)
def test_pytest_of_a_solution_that_cheats_is_not_solved(tmp_path: Path, how: str) -> None:
    for name, text in CHEATS[how].items():
        (tmp_path / name).write_text(text)

    assert judged(tmp_path, "pytest", tests={"test_greet.py": TEST}).solved is False


def test_command_that_ends_well_is_solved(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("4 2")
    check = "import sys\nassert open('data.txt').read().split() == sys.argv[1:]\n"

    assert judged(tmp_path, "command", command=["python", "c.py", "4", "2"], files={"c.py": check}).solved


@pytest.mark.parametrize(
    ("check", "note"),
    [
        ("import sys; sys.exit('the sum is wrong')", "the sum is wrong"),
        ("raise SystemExit(3)", ""),
        ("assert 1 == 2, 'no'", "AssertionError: no"),
        ("import os; os._exit(0)", "it left before its end"),
        ("while True: pass", "no end after 1 s"),
        ("print('x' * 10_000_000)", "it printed too much"),
    ],
)
def test_command_that_ends_otherwise_is_not_solved(tmp_path: Path, check: str, note: str) -> None:
    verdict = judged(tmp_path, "command", command=["python", "c.py"], files={"c.py": check}, timeout_s=1.0)

    assert verdict == Verdict(False, 0.0, note)


def test_command_sees_no_network_no_home_and_no_file_of_the_host(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("s")
    work = tmp_path / "work"
    work.mkdir()
    (work / "link").symlink_to(secret)
    check = (
        "import os, socket\n"
        f"assert not os.path.exists({str(secret)!r})\n"
        "assert not os.path.lexists('link')\n"
        "assert not [n for n in os.environ if 'KEY' in n or 'MELETE' in n]\n"
        "try:\n    socket.socket()\nexcept OSError:\n    pass\nelse:\n    raise SystemExit('a socket')\n"
    )

    assert judged(work, "command", command=["python", "c.py"], files={"c.py": check}) == Verdict(
        True, 1.0, ""
    )


def test_command_leaves_the_working_copy_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1")

    judged(tmp_path, "command", command=["python", "c.py"], files={"c.py": "open('a.txt', 'w').write('2')"})

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "1"}


@pytest.mark.parametrize("command", [["bash", "-c", "true"], ["python", "-c", "1"], ["python", "-m"]])
def test_command_that_is_no_python_program_is_refused(tmp_path: Path, command: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"checker\.command\.command"):
        judged(tmp_path, "command", command=command)


def test_command_over_too_much_is_an_error_that_says_how_much_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"0" * 11_000_000)

    with pytest.raises(ConfigError, match="10,000,000 bytes"):
        judged(tmp_path, "command", command=["python", "c.py"], files={"c.py": ""})


@pytest.mark.parametrize(
    ("options", "solved"),
    [
        ({"text": "Paris"}, True),
        ({"text": "paris"}, False),
        ({"text": "paris", "ignore_case": True}, True),
        ({"text": "Paris", "whole": True}, False),
        ({"text": "It is Paris.", "whole": True}, True),
        ({"pattern": r"\bPar\w+\b"}, True),
        ({"pattern": r"^Paris"}, False),
        ({"pattern": r"it IS \w+\.", "ignore_case": True, "whole": True}, True),
    ],
)
def test_expected_text_in_the_output_is_found(tmp_path: Path, options: dict[str, Any], solved: bool) -> None:
    assert judged(tmp_path, "expected_text", "It is Paris.\n", **options).solved is solved


def test_expected_text_with_a_pattern_that_never_ends_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = find.load("melete.bench.checkers", "expected_text", "checker")
    monkeypatch.setattr(module, "MATCH_TIMEOUT_S", 0.3)

    assert judged(tmp_path, "expected_text", "a" * 60 + "b", pattern="(a+)+$").solved is False


def test_expected_text_in_a_link_that_leads_out_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("42")
    work = tmp_path / "work"
    work.mkdir()
    (work / "answer.txt").symlink_to(tmp_path / "secret.txt")
    (work / "folder").symlink_to(tmp_path)

    assert judged(work, "expected_text", text="42", file="answer.txt").solved is False
    assert judged(work, "expected_text", text="42", file="folder/secret.txt").solved is False


def test_run_in_a_working_copy_that_is_a_link_is_not_solved(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "answer.txt").write_text("42")
    (tmp_path / "work").symlink_to(tmp_path / "elsewhere")

    assert "put a link" in judged(tmp_path / "work", "expected_text", text="42", file="answer.txt").note


def test_expected_text_in_a_pipe_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "answer.txt")

    assert (
        judged(tmp_path, "expected_text", text="42", file="answer.txt").note == "there is no file answer.txt"
    )


def test_expected_text_of_output_that_nobody_caught_says_so(tmp_path: Path) -> None:
    assert "was not caught" in judged(tmp_path, "expected_text", None, text="42").note


def test_expected_text_with_text_and_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either text or pattern is needed"):
        judged(tmp_path, "expected_text", "", text="a", pattern="b")


def test_file_matches_counts_the_share_that_is_right(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("# Report  \r\nfine\n\n")
    (tmp_path / "draft.md").write_text("x")
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    wanted = {
        "report.md": {"text": "# Report\nfine\n"},
        "draft.md": {"sha256": digest},
        "old.md": {"absent": True},
        "new.md": {},
    }

    assert judged(tmp_path, "file_matches", files=wanted) == Verdict(False, 0.75, "not as expected: new.md")


def test_needs_output_only_where_the_harness_s_words_are_judged() -> None:
    assert checkers.needs_output({"expected_text": {"text": "a"}})
    assert not checkers.needs_output({"expected_text": {"text": "a", "file": "b"}})
    assert not checkers.needs_output({"pytest": {"tests": {}}})
    assert not checkers.needs_output({})
