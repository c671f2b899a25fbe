"""Snippets: whatever stands in a value comes out of the shell as it went in, and nothing of it is run."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melete.bench import snippet
from melete.errors import ConfigError

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True).map(lambda name: f"T_{name}")
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
TRICKS = (
    "$(touch x)",
    "`id`",
    "'; id; '",
    '"$HOME"',
    "a\nb",
    "\\",
    "!!",
    "-n",
    "~",
    "*",
    "\x1b[31m",
    " ",
    "",
)


@given(st.dictionaries(NAMES, TEXT, max_size=5))
@settings(deadline=None, max_examples=40)
@example(dict(zip((f"T_{n}" for n in range(len(TRICKS))), TRICKS, strict=True)))
def test_shell_snippet_read_by_sh_gives_the_very_values(environment: dict[str, str]) -> None:
    script = snippet.render("shell", environment) + "env -0\n"

    seen = subprocess.run(["sh", "-c", 'eval "$1"', "sh", script], capture_output=True, check=True, env={})

    pairs = [entry.partition(b"=") for entry in seen.stdout.split(b"\0")]
    got = {name.decode(): value.decode() for name, _, value in pairs if name.startswith(b"T_")}
    assert got == environment
    assert seen.stderr == b""


def test_shell_snippet_unsets_what_a_profile_takes_away() -> None:
    script = snippet.render("shell", {"A": "1"}, ["B", "A"]) + 'echo "${A-none} ${B-none}"'

    seen = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env={"A": "0", "B": "0"})

    assert seen.stdout == "1 none\n"


QUOTES = "'\u2018\u2019\u201a\u201b"


def read_by_powershell(line: str) -> str:
    """A verbatim string literal as the language specification (2.3.5.2) defines it: a doubled quote is one quote."""
    literal = line.partition(" = ")[2]
    assert literal[0] in QUOTES
    assert literal[-1] in QUOTES
    inner, value, at = literal[1:-1], "", 0
    while at < len(inner):
        if inner[at] in QUOTES:
            assert inner[at + 1] in QUOTES, "the string ends before its end"
            at += 1
        value += inner[at]
        at += 1
    return value


@given(TEXT)
@example("it's \u2018quoted\u2019; Remove-Item $HOME")
def test_powershell_snippet_is_one_verbatim_literal(value: str) -> None:
    text = snippet.render("powershell", {"A": value})

    assert text.startswith("$env:A = '")
    assert read_by_powershell(text.removesuffix("\n")) == value


@given(st.dictionaries(NAMES, TEXT, max_size=5))
def test_json_snippet_holds_the_environment(environment: dict[str, str]) -> None:
    assert json.loads(snippet.render("json", environment, ["B"])) == {
        "environment": environment,
        "unset": ["B"],
    }


@given(TEXT)
def test_dotenv_snippet_is_plain_or_single_quoted_or_refused(value: str) -> None:
    if re.search(r"['\\\r\n]|\$\{", value):
        with pytest.raises(ConfigError, match="which readers of"):
            snippet.render("dotenv", {"A": value})
    else:
        assert snippet.render("dotenv", {"A": value}) in (f"A={value}\n", f"A='{value}'\n")


def test_render_of_a_zero_byte_is_refused() -> None:
    with pytest.raises(ConfigError, match="zero byte"):
        snippet.render("shell", {"A": "a\0b"})


def test_render_of_an_unknown_format_lists_the_formats() -> None:
    with pytest.raises(ConfigError, match="shell, dotenv, json, powershell"):
        snippet.render("fish", {})
