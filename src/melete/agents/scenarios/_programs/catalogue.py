"""The defects that are real: every variant of a program was given to ruff and pytest, and the right one spoke.

A lint defect is flagged with its own code, by nothing else, and all tests pass; a behaviour defect fails at least one
test in time and the linter is silent. Build anew after a change of programs or kinds (about two minutes of CPU):
`python -m melete.agents.scenarios._programs.catalogue`. A test rebuilds it and compares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from melete.agents.scenarios._programs import checks, defects
from melete.agents.scenarios._programs.library import Example, Program, names_of_tests, programs

FILE = Path(__file__).parent / "catalogue.json"
TRIED, KEPT = 5, 2
"""Places of a kind that are tried, and that are kept, in one program."""


@dataclass(frozen=True)
class Variant:
    """A program with one defect, or with none where `kind` is empty.

    Attributes:
        program: its name.
        kind: one of `defects.KINDS`, or empty.
        place: which of the places where the kind fits.
        lines: where a reviewer may point, in the changed source.
        fails: names of the tests that fail.
    """

    program: str
    kind: str = ""
    place: int = 0
    lines: tuple[int, ...] = ()
    fails: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Names it in goals and reports."""
        return f"{self.program}:{self.kind}:{self.place}" if self.kind else f"{self.program}::"


def variants(program: str) -> tuple[Variant, ...]:
    """The verified defects of a program, in the order of the catalogue."""
    return _read()[program]


def find(key: str) -> Variant:
    """The variant with a key, such as `clamp:wrong_boundary:1` or `clamp::` for the program as it should be."""
    return _by_key()[key]


@lru_cache(maxsize=4096)
def source(key: str) -> str:
    """The text of a variant."""
    variant = find(key)
    text = programs()[variant.program].source
    if not variant.kind:
        return text
    return defects.apply(text, defects.edits(text, variant.kind)[variant.place])


def suite(key: str) -> checks.Suite:
    """A variant with its program's tests."""
    program = programs()[find(key).program]
    return checks.Suite(program.name, source(key), program.tests)


def neighbours(key: str) -> list[checks.Suite]:
    """All variants of the same program, which are cheap to test in the same start of the sandbox."""
    name = find(key).program
    return [suite(one.key) for one in (Variant(name), *variants(name))]


def failing(variant: Variant) -> list[Example]:
    """The examples that a variant gets wrong, smallest input first."""
    examples = programs()[variant.program].examples
    found = [e for e, name in zip(examples, names_of_tests(examples), strict=True) if name in variant.fails]
    return sorted(found, key=lambda example: example.size)


def verify(program: Program, kinds: Sequence[str] = defects.KINDS) -> list[Variant]:
    """Tries the defects of some kinds on a program with the real tools, and returns those that are real."""
    tried: dict[str, tuple[str, int, int]] = {program.source: ("", 0, 0)}
    for kind in kinds:
        found = defects.edits(program.source, kind)
        step = max(1, len(found) // TRIED)
        for place in range(0, len(found), step):
            text = defects.apply(program.source, found[place])
            tried.setdefault(text, (kind, place, defects.first_line(program.source, found[place])))
    suites = [checks.Suite(program.name, text, program.tests) for text in tried]
    real: list[Variant] = []
    for (text, (kind, place, line)), report in zip(tried.items(), checks.reports(suites), strict=True):
        kept = sum(variant.kind == kind for variant in real)
        if kind and kept < KEPT:
            real.extend(_judge(Variant(program.name, kind, place, (line,)), text, report))
    return real


def _judge(variant: Variant, text: str, report: checks.Report) -> list[Variant]:
    """The variant with what the tools say, or nothing if it is no real defect of its kind."""
    findings = checks.lint(text)
    code = defects.LINT_CODES.get(variant.kind)
    if code is not None:
        if not report.passed or {finding.code for finding in findings} != {code}:
            return []
        lines = tuple(sorted({finding.line for finding in findings}))
        return [Variant(variant.program, variant.kind, variant.place, lines)]
    slow = any("TimeoutError" in test.message for test in report.failed)
    if findings or report.error or slow or not report.failed:
        return []
    fails = tuple(test.name for test in report.failed)
    return [Variant(variant.program, variant.kind, variant.place, variant.lines, fails)]


def digest(program: Program) -> str:
    """Changes with a program's source or tests."""
    return hashlib.sha256((program.source + program.tests).encode()).hexdigest()[:16]


def build() -> str:
    """The whole catalogue as JSON."""
    entries = []
    for name, program in programs().items():
        found = [
            json.dumps({key: value for key, value in asdict(variant).items() if key != "program"})
            for variant in verify(program)
        ]
        lines = ",\n  ".join(found)
        entries.append(f'"{name}": {{"digest": "{digest(program)}", "variants": [\n  {lines}]}}')
    return "{\n" + ",\n".join(entries) + "\n}\n"


@lru_cache(maxsize=1)
def _read() -> dict[str, tuple[Variant, ...]]:
    rows = json.loads(FILE.read_text(encoding="ascii"))
    return {
        name: tuple(
            Variant(name, one["kind"], one["place"], tuple(one["lines"]), tuple(one["fails"]))
            for one in row["variants"]
        )
        for name, row in rows.items()
    }


@lru_cache(maxsize=1)
def _by_key() -> dict[str, Variant]:
    every = [variant for found in _read().values() for variant in found]
    return {variant.key: variant for variant in [*every, *map(Variant, _read())]}


if __name__ == "__main__":
    FILE.write_text(build(), encoding="ascii")
