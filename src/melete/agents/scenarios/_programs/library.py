"""The programs that are reviewed and tested: one YAML file each, with its source and worked examples.

An example is `[arguments, expected]` of one function, as JSON values, or `[arguments, {raises: name}]`. The program's
pytest file is written from its examples. Adding a program is adding a file and running `catalogue.py` once.

Limits: sources are ASCII, functions stand at the top level and take and return JSON values.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "texts"


@dataclass(frozen=True)
class Example:
    """One call and what it must give; `raises` is the name of an exception, or empty."""

    function: str
    arguments: list[Any]
    expected: Any
    raises: str = ""

    @property
    def call(self) -> str:
        """The call as Python writes it."""
        return f"{self.function}({', '.join(map(repr, self.arguments))})"

    @cached_property
    def key(self) -> str:
        """The same for equal cases; 1, 1.0 and true differ."""
        return json.dumps([self.function, self.arguments, self.expected, self.raises])

    @property
    def size(self) -> int:
        """Characters of the arguments as JSON: how small an input is."""
        return len(json.dumps(self.arguments))

    @property
    def wanted(self) -> str:
        """What the call must give, as JSON, or `raises <name>`."""
        return f"raises {self.raises}" if self.raises else json.dumps(self.expected)


@dataclass(frozen=True)
class Program:
    """A small module.

    Attributes:
        name: the module's name.
        about: what it does, as a verb phrase, such as `adds up an order`.
        split: `train`, or `unseen` for a program that no training task has.
        source: its text.
        examples: calls of its functions, in the order of the file.
    """

    name: str
    about: str
    split: str
    source: str
    examples: tuple[Example, ...]

    @property
    def path(self) -> str:
        """Where the module stands in its repository."""
        return f"src/{self.name}.py"

    @property
    def tests_path(self) -> str:
        """Where its tests stand."""
        return f"tests/test_{self.name}.py"

    @cached_property
    def functions(self) -> tuple[str, ...]:
        """Functions that have examples, in order."""
        return tuple(dict.fromkeys(example.function for example in self.examples))

    @cached_property
    def tests(self) -> str:
        """The program's pytest file: one test for each example."""
        return pytest_file(self.name, self.examples)

    def examples_of(self, function: str) -> list[Example]:
        """The examples of one function."""
        return [example for example in self.examples if example.function == function]

    def head(self, function: str) -> str:
        """Signature and first docstring of a function, from the right program."""
        node = self._nodes[function]
        arguments = ast.unparse(node.args)
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"{function}({arguments}){returns}: {ast.get_docstring(node)}"

    @cached_property
    def _nodes(self) -> dict[str, ast.FunctionDef]:
        return {node.name: node for node in ast.parse(self.source).body if isinstance(node, ast.FunctionDef)}


def pytest_file(module: str, examples: Sequence[Example]) -> str:
    """One test for each example, numbered within its function; values are written as Python literals."""
    lines = ["import pytest"] if any(example.raises for example in examples) else []
    lines += [f"from {module} import {', '.join(sorted({example.function for example in examples}))}", ""]
    for example, name in zip(examples, names_of_tests(examples), strict=True):
        lines += ["", f"def {name}():"]
        if example.raises:
            lines += [f"    with pytest.raises({example.raises}):", f"        {example.call}", ""]
        else:
            lines += [f"    assert {example.call} == {example.expected!r}", ""]
    return "\n".join(lines)


def names_of_tests(examples: Sequence[Example]) -> list[str]:
    """Names of the tests that `pytest_file` writes, in order."""
    numbers: dict[str, int] = {}
    names = []
    for example in examples:
        numbers[example.function] = numbers.get(example.function, 0) + 1
        names.append(f"test_{example.function}_{numbers[example.function]}")
    return names


@lru_cache(maxsize=1)
def programs() -> dict[str, Program]:
    """All programs by name, sorted."""
    return {path.stem: _read(path) for path in sorted(FOLDER.glob("*.yaml"))}


def names(split: str) -> list[str]:
    """Names of the programs of a split: those of `train` serve `held_out` as well."""
    wanted = "unseen" if split == "unseen" else "train"
    return [name for name, program in programs().items() if program.split == wanted]


def _read(path: Path) -> Program:
    values = yaml.load(path.read_text(encoding="ascii"), Loader=_LOADER)
    examples = [
        _example(function, arguments, expected)
        for function, rows in values["examples"].items()
        for arguments, expected in rows
    ]
    return Program(path.stem, values["about"], values["split"], values["source"], tuple(examples))


def _example(function: str, arguments: list[Any], expected: Any) -> Example:
    if isinstance(expected, dict) and set(expected) == {"raises"}:
        return Example(function, arguments, None, expected["raises"])
    return Example(function, arguments, expected)


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
