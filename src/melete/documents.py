"""A YAML or JSON file as a typed record, and every wrong thing in it named with `file:line: key`.

The file is read as nodes, so that a key that stands twice is seen and every value knows its line; pydantic then checks
the values. A hostile file is bounded before anything is built from it: its bytes, its depth, and how often aliases
repeat what they stand for. Tags that build objects are refused.

    document = read(path, JobFile, "job file")        # the first problem, as an error
    document, problems = check(path, Variant, "variant")  # all of them, as a list

A `Shelf` holds the files of one kind: the user's folder first, then the folder that ships; the file's name is the id.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from melete import find
from melete.errors import ConfigError, UnknownNameError

Key = str | int
Place = tuple[Key, ...]
M = TypeVar("M", bound=BaseModel)

LARGEST_BYTES = 2_000_000
MOST_NODES = 100_000
"""Nodes that a file may have when every alias is written out; it keeps a few lines from becoming gigabytes."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SECRET = re.compile(r"(^|[_-])(key|secret|token|password|credential|header)s?$(?<!tokens)", re.IGNORECASE)
"""Keys whose value is not repeated in a message."""


@dataclass(frozen=True)
class Problem:
    """One wrong thing in a file; `key` is empty where the file as a whole is meant, and so is `place`."""

    path: Path
    line: int
    key: str
    text: str
    allowed: str | None = None
    column: int = 1
    place: Place = ()

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.path}:{self.line}: {key}{self.text}"


class _Wrong(Exception):
    """Carries the problem out of the reader."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True)
class Document(Generic[M]):
    """A file that was read: its path, its record and the nodes that know the lines."""

    path: Path
    record: M
    node: yaml.Node = field(repr=False)

    def problem(self, place: Place, text: str, *, key: str | None = None) -> Problem:
        """A problem at a place of the file, such as `("processes", 0, "config")`."""
        shown = ".".join(str(part) for part in place) if key is None else key
        at, column = position(self.node, place)
        return Problem(self.path, at, shown, text, column=column, place=place)

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem


def read(path: Path, model: type[M], what: str, *, error: type[ConfigError] = ConfigError) -> Document[M]:
    """Reads a file and checks it against a model.

    Args:
        path: file; `.json` is read as JSON, everything else as YAML.
        model: what the file has to be.
        what: word for the messages, such as `job file`.
        error: class of the error.

    Raises:
        ConfigError: (or `error`) the first thing that is wrong, with its file, line and key.
    """
    document, problems = check(path, model, what)
    if document is None:
        raise failure(problems, error)
    return document


def check(
    path: Path, model: type[M], what: str, *, name: str | None = None, text: str | None = None
) -> tuple[Document[M] | None, list[Problem]]:
    """Reads a file; returns its document, or None and everything that is wrong in it.

    Args:
        path: file to read.
        model: what the file has to be.
        what: word for the messages.
        name: value of the key `name`, which the file may leave out and must not contradict.
        text: what the file holds, where it is not written yet; `path` is then only a name.
    """
    try:
        node, values = _parse(path, _text_of(path, what) if text is None else text, what)
    except _Wrong as wrong:
        return None, [wrong.problem]
    if name is not None and isinstance(values, dict) and values.setdefault("name", name) != name:
        found = f"{values['name']!r} is not the name of the file."
        return None, [
            Problem(path, line(node, ("name",)), "name", found, f"Write {name!r}, or leave it out.")
        ]
    try:
        return Document(path, model.model_validate(values), node), []
    except ValidationError as error:
        told = [(place, *position(node, place), key, words) for place, key, words in problems(model, error)]
        return None, [
            Problem(path, at, key, words, column=column, place=place)
            for place, at, column, key, words in told
        ]


def parse(path: Path, text: str, what: str) -> tuple[yaml.Node | None, Any, list[Problem]]:
    """A text as nodes and as values before they are checked against anything; or what keeps it from being read."""
    try:
        return *_parse(path, text, what), []
    except _Wrong as wrong:
        return None, None, [wrong.problem]


def failure(problems: list[Problem], error: type[ConfigError] = ConfigError) -> ConfigError:
    """The first of some problems as an error; the number of the others is its next step."""
    first, more = problems[0], len(problems) - 1
    next_step = f"{more} more problem{'s' if more > 1 else ''} in this file." if more else None
    return error(str(first), allowed=first.allowed, next_step=next_step)


def problems(model: type[BaseModel], error: ValidationError) -> list[tuple[Place, str, str]]:
    """Place, dotted key and words of each problem; unknown keys first, because they often explain missing ones."""
    found = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    return [(problem["loc"], *_words(model, problem)) for problem in found]


def _words(model: type[BaseModel], problem: Any) -> tuple[str, str]:
    place: Place = problem["loc"]
    key = ".".join(str(part) for part in place) or "config"
    if problem["type"] == "value_error":
        return key, str(problem["ctx"]["error"])
    if problem["type"] == "extra_forbidden":
        known = _known(model, place[:-1])
        close = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return key, f"unknown key.{hint} Known: {', '.join(known)}."
    message = problem["msg"][0].lower() + problem["msg"][1:]
    if problem["type"] == "missing":
        return key, f"{message}."
    if any(SECRET.search(str(part)) for part in place):
        return key, f"{message}."
    found = repr(problem.get("input"))
    return key, f"{message}; found {found if len(found) < 80 else found[:77] + '...'}."


def _known(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that the model at a place inside another one has."""
    for part in place:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        inner = list(_models(model.model_fields[part].annotation))
        if inner:
            model = inner[0]
    return sorted(model.model_fields)


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models(part)


@dataclass(frozen=True)
class Shelf(Generic[M]):
    """Files of one kind, found by name: the user's win over those that ship.

    Args:
        kind: word for the messages, such as `task card`.
        model: what a file has to be; it has a field `name`.
        folder: the user's folder, which need not exist.
        package: package whose folder holds the files that ship; empty for none.
    """

    kind: str
    model: type[M]
    folder: Path
    package: str = ""

    def paths(self) -> dict[str, Path]:
        """Name to path of every file, sorted by name."""
        found: dict[str, Path] = {}
        for folder in (find.folder_of(self.package) if self.package else None, self.folder):
            if folder is not None and folder.is_dir():
                files = (file for pattern in ("*.yaml", "*.yml", "*.json") for file in folder.glob(pattern))
                found.update({file.stem: file for file in files if not file.name.startswith((".", "_"))})
        return dict(sorted(found.items()))

    def names(self) -> list[str]:
        """Sorted names of all files."""
        return list(self.paths())

    def check(self, name: str) -> tuple[Document[M] | None, list[Problem]]:
        """Reads one file by name; returns its document, or None and everything that is wrong in it.

        Raises:
            UnknownNameError: no file has that name.
        """
        known = self.paths()
        if name not in known:
            raise UnknownNameError(
                self.kind, name, known, next_step=f"Put it into {self.folder}/{name}.yaml."
            )
        if not NAME.fullmatch(name):
            text = f"{name!r} cannot be a name: letters, digits, '_', '.' and '-', a letter or digit first."
            return None, [Problem(known[name], 1, "", text)]
        return check(known[name], self.model, self.kind, name=name)

    def read(self, name: str) -> Document[M]:
        """Reads one file by name.

        Raises:
            UnknownNameError: no file has that name.
            ConfigError: the first thing that is wrong in it, with file, line and key.
        """
        document, problems = self.check(name)
        if document is None:
            raise failure(problems)
        return document


def line(node: yaml.Node, place: Place) -> int:
    """Line of the deepest node along a place that is in the file; of its key where there is one."""
    return position(node, place)[0]


def position(node: yaml.Node, place: Place) -> tuple[int, int]:
    """Line and column, both from 1, of the deepest node along a place; of its key where there is one."""
    mark = node.start_mark
    for part in place:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if entry is None:
                break
            mark, node = entry[0].start_mark, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            mark = node.start_mark
        else:
            break
    return mark.line + 1, mark.column + 1


def _text_of(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise _too_large(path, what)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _Wrong(Problem(path, 1, "", f"the {what} cannot be read ({error}).")) from error


def _too_large(path: Path, what: str) -> _Wrong:
    return _Wrong(Problem(path, 1, "", f"the {what} is larger than {LARGEST_BYTES:,} bytes."))


def _parse(path: Path, text: str, what: str) -> tuple[yaml.Node, Any]:
    """The text of a file as nodes and as values."""
    if len(text) > LARGEST_BYTES:
        raise _too_large(path, what)
    if path.suffix == ".json":
        text = re.sub(r"^\t+", lambda tabs: " " * len(tabs[0]), text, flags=re.MULTILINE)
    try:
        loader = yaml.SafeLoader(text)
        node: yaml.Node | None = loader.get_single_node()
        if node is None:
            raise _Wrong(Problem(path, 1, "", f"the {what} is empty."))
        _Reading(path, what).check(node, frozenset())
        return node, loader.construct_document(node)
    except RecursionError as error:
        raise _Wrong(Problem(path, 1, "", f"the {what} is nested too deeply.")) from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error).split("\n")[0]
        at, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _Wrong(Problem(path, at, "", f"not YAML: {said}.", column=column)) from error


@dataclass
class _Reading:
    """Refuses a key that stands twice, a node that holds itself by an alias, and aliases that multiply."""

    path: Path
    what: str
    nodes: int = 0

    def check(self, node: yaml.Node, above: frozenset[int]) -> None:
        here = node.start_mark.line + 1
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise self._wrong(
                here, f"the {self.what} has more than {MOST_NODES:,} values, aliases written out."
            )
        if id(node) in above:
            raise self._wrong(here, f"not a {self.what}: an alias stands inside its anchor.")
        below = above | {id(node)}
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                at = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise self._wrong(at, "a key has to be a word.")
                if key.value in seen:
                    raise self._wrong(at, f"stands twice, first in line {seen[key.value]}.", key.value)
                seen[key.value] = at
                self.check(value, below)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self.check(item, below)

    def _wrong(self, at: int, text: str, key: str = "") -> _Wrong:
        return _Wrong(Problem(self.path, at, key, text))
