"""A tool that runs a program: a list of arguments with places for what the model says, and never a shell.

    grep = command_tool(
        "search", "Searches the notes.", ["grep", "-rn", "--", "{pattern}", "{folder}"],
        {"type": "object", "properties": {"pattern": {"type": "string"}, "folder": {"enum": ["notes"]}}},
        timeout_s=5, folder=Path("notes"))

`{name}` stands for an argument's text, within one element of the list, so that spaces, quotes and semicolons are only
text. A value that begins with `-` is refused where an element begins with it and no `--` stands before, because the
program would take it for an option. The program runs in a process group of its own with `PATH` and `LANG` as its whole
environment, and is killed with everything it started when the time is up. It sees the file system as we do: which
program is safe to offer is for the author to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melete.actions.action import compact_json
from melete.actions.attempt import ToolCrash, ToolFailure, run_group
from melete.actions.tools import Tool
from melete.errors import ScenarioError

PLACE = re.compile(r"\{(\w+)\}")


def command_tool(
    name: str,
    description: str,
    argv: Sequence[str],
    parameters: dict[str, Any],
    *,
    timeout_s: float,
    folder: Path,
    **options: Any,
) -> Tool:
    """A tool that runs a program and answers with what it writes to stdout.

    Args:
        name: name of the tool.
        description: what it does, for the model.
        argv: program and arguments; not a line of text.
        parameters: JSON schema of the tool's arguments, each of which `argv` may name.
        timeout_s: wall time that the program has.
        folder: its working folder.
        **options: other fields of `Tool`, such as `repeatable`.

    Raises:
        ScenarioError: `argv` is no list, its program comes from the model, or a place has no parameter.
    """
    if isinstance(argv, str) or not argv or PLACE.search(argv[0]):
        raise ScenarioError(
            f"The tool {name} runs {argv!r}.",
            allowed="Allowed: a list of arguments whose first, the program, is fixed.",
        )
    properties = parameters.get("properties", {})
    for place in PLACE.findall(" ".join(argv)):
        if place not in properties:
            raise ScenarioError(f"The tool {name} has a place {{{place}}}, but no parameter of that name.")

    def run(**arguments: Any) -> str:
        line = arguments_of(argv, arguments)
        done = run_group(line, timeout_s=timeout_s, folder=folder, environment={})
        out, err = (part.decode(errors="replace") for part in (done.stdout, done.stderr))
        if done.exit_code:
            raise ToolCrash(f"{argv[0]} ended with {done.exit_code}. {(err or out)[-1500:]}".strip())
        return out

    return Tool(name, description, parameters, run, **options)


def arguments_of(argv: Sequence[str], arguments: dict[str, Any]) -> list[str]:
    """The program's arguments; elements whose place was not given are left out.

    Raises:
        ToolFailure: a value would be taken for an option, or holds a null character.
    """
    line: list[str] = []
    for element in argv:
        places = PLACE.findall(element)
        if any(arguments.get(place) is None for place in places):
            continue
        text = PLACE.sub(lambda found: _text(arguments[found[1]]), element)
        if "\0" in text:
            raise ToolFailure("An argument holds a null character.")
        if places and element.startswith("{") and text.startswith("-") and "--" not in line:
            raise ToolFailure(f"{places[0]} may not begin with '-'.")
        line.append(text)
    return line


def _text(value: Any) -> str:
    return value if isinstance(value, str) else compact_json(value)
