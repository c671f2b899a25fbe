"""Programs, seeded defects and the real tools: what `code_review` and `qa_testing` are built on."""

from __future__ import annotations

import importlib.util
import json

import pytest

from melete.agents import scenario
from melete.agents.scenarios._programs import catalogue, changes, checks, defects, library
from melete.agents.scenarios._programs.catalogue import Variant
from melete.agents.scenarios._programs.library import Example
from melete.errors import MissingExtraError, SandboxError
from melete.evals import sandbox

PROGRAMS = library.programs()
TESTS = "from bad import f\n\n\ndef test_one():\n    assert f() == 1\n\n\ndef test_two():\n    pass\n"


def report_of(source: str) -> checks.Report:
    return checks.report(checks.Suite("bad", source, TESTS))


def test_programs_are_clean_pass_their_tests_and_reach_every_line() -> None:
    suites = [checks.Suite(p.name, p.source, p.tests) for p in PROGRAMS.values()]
    for program, report in zip(PROGRAMS.values(), checks.reports(suites), strict=True):
        assert checks.lint(program.source) == (), program.name
        assert report.passed, (program.name, report.error, report.failed)
        reached = set().union(*(test.lines for test in report.tests))
        wanted = defects.statement_lines(program.source, program.functions)
        assert wanted <= reached, (program.name, wanted - reached)


def test_there_are_enough_programs_in_both_pools() -> None:
    train, unseen = set(library.names("train")), set(library.names("unseen"))
    assert len(train) >= 20
    assert len(unseen) >= 5
    assert not train & unseen
    assert library.names("held_out") == library.names("train")


def test_older_versions_with_all_decoys_still_pass_their_tests() -> None:
    olds = [changes.older(p.source, tuple(range(len(changes.decoys(p.source))))) for p in PROGRAMS.values()]
    suites = [checks.Suite(p.name, old, p.tests) for p, old in zip(PROGRAMS.values(), olds, strict=True)]
    for program, old, report in zip(PROGRAMS.values(), olds, checks.reports(suites), strict=True):
        assert report.passed, program.name
        assert old != program.source


@pytest.mark.parametrize("name", ["clamp", "tickets"])
def test_catalogue_of_a_program_is_what_the_tools_say(name: str) -> None:
    assert tuple(catalogue.verify(PROGRAMS[name])) == catalogue.variants(name)


@pytest.mark.slow
def test_catalogue_built_anew_is_the_one_that_is_kept() -> None:
    assert catalogue.build() == catalogue.FILE.read_text(encoding="ascii")


def test_catalogue_belongs_to_the_programs_as_they_are() -> None:
    kept = json.loads(catalogue.FILE.read_text(encoding="ascii"))
    assert {name: row["digest"] for name, row in kept.items()} == {
        name: catalogue.digest(program) for name, program in PROGRAMS.items()
    }


def test_every_kind_of_defect_occurs_and_points_at_a_changed_line() -> None:
    kinds = set()
    for name, program in PROGRAMS.items():
        for variant in catalogue.variants(name):
            kinds.add(variant.kind)
            shown = changes.difference(program.source, catalogue.source(variant.key)).splitlines()
            assert any(row.startswith(f"+{line} ") for row in shown for line in variant.lines), variant
            assert bool(variant.fails) == (variant.kind in defects.BEHAVIOUR), variant
    assert kinds == set(defects.KINDS)


def test_defects_of_a_program_are_all_different_texts() -> None:
    for name in PROGRAMS:
        texts = [catalogue.source(variant.key) for variant in catalogue.variants(name)]
        assert len(set(texts)) == len(texts), name


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("wrong_boundary", "    if value < low:", "    if value <= low:"),
        ("inverted_condition", "    if low > high:", "    if low <= high:"),
        ("missing_return", "    return min(value, high)", "    min(value, high)"),
        ("swapped_arguments", "    inside = clamp(value, low, high)", "    inside = clamp(low, value, high)"),
        ("wrong_operator", "    return value % size", "    return value // size"),
    ],
)
def test_defect_is_seeded_where_its_kind_fits(kind: str, before: str, after: str) -> None:
    source = PROGRAMS["clamp"].source
    texts = [defects.apply(source, edits) for edits in defects.edits(source, kind)]
    assert before in source
    assert source.replace(before, after, 1) in texts


def test_failing_examples_come_smallest_first() -> None:
    for name in PROGRAMS:
        for variant in catalogue.variants(name):
            sizes = [example.size for example in catalogue.failing(variant)]
            assert sizes == sorted(sizes)
            assert len(sizes) == len(variant.fails)


def test_linter_names_line_and_code_and_is_asked_once() -> None:
    source = 'import os\n\n\ndef f(a=[]):\n    """Doc."""\n    return a\n'
    found = checks.lint(source)
    assert [(one.line, one.code) for one in found] == [(1, "F401"), (4, "B006")]
    assert checks.lint(source) is found


def test_report_of_a_failing_test_holds_the_message_and_the_lines() -> None:
    report = report_of("def f():\n    return 2\n")
    assert [(one.name, one.passed) for one in report.tests] == [("test_one", False), ("test_two", True)]
    assert report.tests[0].message == "assert 2 == 1 + where 2 = f()"
    assert report.tests[0].lines == {2}
    assert not report.passed


def test_suites_of_one_name_in_one_start_do_not_mix() -> None:
    suites = [checks.Suite("bad", f"def f():\n    return {n}\n", TESTS) for n in (1, 5, 1)]
    assert [report.passed for report in checks.reports(suites)] == [True, False, True]


@pytest.mark.slow
def test_program_that_hangs_fails_in_time_and_its_neighbours_pass() -> None:
    loops = "def f():\n    while True:\n        pass\n"
    suites = [checks.Suite("bad", text, TESTS) for text in (loops, "def f():\n    return 1  # right\n")]
    hung, right = checks.reports(suites)
    assert "TimeoutError" in hung.failed[0].message
    assert right.passed


def test_program_that_leaves_is_an_error_and_its_neighbours_pass() -> None:
    leaves = "import os\n\n\ndef f():\n    os._exit(0)\n"
    suites = [checks.Suite("bad", text, TESTS) for text in (leaves, "def f():\n    return 1  # also right\n")]
    left, right = checks.reports(suites)
    assert left.error == "the tests did not end"
    assert not left.passed
    assert right.passed


def test_program_that_cannot_be_imported_is_an_error_with_its_reason() -> None:
    assert "SyntaxError" in report_of("def f(:\n").error


def test_missing_tool_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ruff" else find(name))
    checks.require.cache_clear()
    with pytest.raises(MissingExtraError, match=r"melete\[scenarios\]"):
        checks.require()


def test_missing_sandbox_is_said_before_an_episode_and_not_by_a_failed_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = {"namespaces": "refused", "landlock": "refused"}
    monkeypatch.setattr(sandbox, "_unavailable", refused)
    checks.require.cache_clear()
    with pytest.raises(SandboxError):
        checks.require()
    assert "sandbox" in str(scenario.load("qa_testing").unavailable())


def test_difference_numbers_the_new_lines() -> None:
    assert changes.difference("a\nb\nc\n", "a\nx\nc\n") == "- b\n+2 x"


def test_key_of_an_example_tells_numbers_and_truth_apart() -> None:
    keys = {Example("f", [value], None).key for value in (1, 1.0, True, "1")}
    assert len(keys) == 4


def test_variant_is_found_by_its_key() -> None:
    for variant in (Variant("clamp"), *catalogue.variants("clamp")):
        assert catalogue.find(variant.key) == variant
