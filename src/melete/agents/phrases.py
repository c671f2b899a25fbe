"""A small grammar for requests: `I [want|would like] to cancel {which}`, drawn, counted and expanded.

`[a|b|]` is a choice, which may be nested and may be empty; `{name}` is a slot that is filled later. One line of a data
file so stands for many sentences, and a test can count them or prove that two pools have none in common.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from melete.datasets.toolcalls.drawing import Draw
from melete.errors import ScenarioError

TOKENS = re.compile(r"[\[\]|]|[^\[\]|]+")
SPACES = re.compile(r" {2,}")
WORD = re.compile(r"(?<!\{)\b[a-z]+\b(?!\})")
SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Phrase:
    """A parsed line: text and choices in order."""

    parts: tuple[str | tuple[Phrase, ...], ...]

    def draw(self, draw: Draw) -> str:
        """One of the sentences."""
        return "".join(part if isinstance(part, str) else draw.pick(part).draw(draw) for part in self.parts)

    @property
    def count(self) -> int:
        """How many sentences it stands for."""
        return math.prod(sum(one.count for one in part) for part in self.parts if not isinstance(part, str))

    def expand(self) -> Iterator[str]:
        """All of its sentences, with slots left open."""
        options = [
            [part] if isinstance(part, str) else [text for one in part for text in one.expand()]
            for part in self.parts
        ]
        for texts in itertools.product(*options):
            yield "".join(texts)


@cache
def parse(text: str) -> Phrase:
    """Reads a line.

    Raises:
        ScenarioError: brackets that do not match.
    """
    tokens = TOKENS.findall(text)
    phrase, rest = _sequence(tokens, 0)
    if rest != len(tokens):
        raise ScenarioError(f"Brackets do not match in the phrase {text!r}.")
    return phrase


def fill(text: str, slots: Mapping[str, object]) -> str:
    """Fills slots; spaces that an empty choice left double are made one."""
    return SPACES.sub(" ", SLOT.sub(lambda match: str(slots[match[1]]), text)).strip()


class Pool:
    """Lines by dotted name, such as `problems.track`, from a mapping of a data file."""

    def __init__(self, lines: Mapping[str, Any]) -> None:
        self._lines: dict[str, tuple[Phrase, ...]] = {}
        self.typos: dict[str, list[str]] = dict(lines.get("typos", {}))
        for name, value in lines.items():
            if isinstance(value, Mapping) and name != "typos":
                self._lines.update({f"{name}.{key}": tuple(map(parse, one)) for key, one in value.items()})
            elif isinstance(value, list):
                self._lines[name] = tuple(map(parse, value))

    @property
    def names(self) -> list[str]:
        """Names of the groups of lines."""
        return list(self._lines)

    def draw(self, draw: Draw, name: str) -> str:
        """A sentence of a group, with slots left open."""
        return draw.pick(self._lines[name]).draw(draw)

    def count(self, name: str) -> int:
        """How many sentences a group has."""
        return sum(line.count for line in self._lines[name])

    def sentences(self, name: str) -> set[str]:
        """Every sentence of a group, with slots left open."""
        return {SPACES.sub(" ", text).strip() for line in self._lines[name] for text in line.expand()}


def style(draw: Draw, texts: Sequence[str], typos: Mapping[str, Sequence[str]]) -> list[str]:
    """Sentences as somebody types them: with capitals or without, with a typo or without, with full stops or without.

    Slots are left as they are, so that what is filled in later is never changed.
    """
    lower, bare, careless = draw.chance(0.25), draw.chance(0.1), draw.chance(0.12)
    styled = []
    for text in texts:
        text = SPACES.sub(" ", text).strip()
        if careless:
            text = WORD.sub(lambda m: draw.pick(typos[m[0]]) if m[0] in typos else m[0], text)
        text = text.lower() if lower else text[:1].upper() + text[1:]
        styled.append(text.rstrip(".!") if bare else text)
    return styled


def _sequence(tokens: list[str], at: int) -> tuple[Phrase, int]:
    parts: list[str | tuple[Phrase, ...]] = []
    while at < len(tokens) and tokens[at] not in "|]":
        if tokens[at] == "[":
            options, at = _choice(tokens, at + 1)
            parts.append(options)
        else:
            parts.append(tokens[at])
            at += 1
    return Phrase(tuple(parts)), at


def _choice(tokens: list[str], at: int) -> tuple[tuple[Phrase, ...], int]:
    options: list[Phrase] = []
    while True:
        option, at = _sequence(tokens, at)
        options.append(option)
        if at >= len(tokens):
            raise ScenarioError(f"Brackets do not match in the phrase {''.join(tokens)!r}.")
        if tokens[at] == "]":
            return tuple(options), at + 1
        at += 1
