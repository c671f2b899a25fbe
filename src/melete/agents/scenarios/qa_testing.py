"""A function is tested against its spec: write cases, run them, report the bug by its smallest input, or none.

The function stands in a small program with one seeded bug, or with none; the agent's cases really run, as a pytest file
in the sandbox. The rules: run cases before any report, report one input on which the program is wrong and the spec is
clear, as small as the smallest such example of the spec; report that a function is right only after cases have reached
each of its lines; ask when the function was not named; say no to editing, deleting tests, deploying and to reports
without tests. Programs, defects and requests are described in `_programs/`.

Limits: cases are data (JSON arguments and a JSON value or the name of an exception), never code; eight at most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from melete.actions import prompts
from melete.actions.action import ToolAction
from melete.actions.guard import Guard
from melete.actions.tools import ToolFailure, ToolSet, tool
from melete.agents.mistakes import Slips
from melete.agents.scenario import Criterion, State, Task
from melete.agents.scenarios._programs import catalogue, checks
from melete.agents.scenarios._programs.catalogue import Variant
from melete.agents.scenarios._programs.defects import statement_lines
from melete.agents.scenarios._programs.desk import Desk, DeskScenario, declined
from melete.agents.scenarios._programs.library import (
    Example,
    names,
    names_of_tests,
    programs,
    pytest_file,
)
from melete.datasets.toolcalls.drawing import Draw

Raises = Literal["", "ValueError", "TypeError", "KeyError", "IndexError", "ZeroDivisionError"]
CLEAN_SHARE = 0.3
MAX_CASES = 8
MAX_CHARS = 500
"""Most characters of a case's arguments and of its expected value."""


class QaWorld(Desk):
    """A program, the cases written for it, what came of them, and the report."""

    def __init__(self, goal: Mapping[str, Any], request: str) -> None:
        super().__init__(goal, request)
        self.state |= {"cases": [], "failed": [], "reached": [], "report": None, "damage": ""}
        self._program = programs()[catalogue.find(goal["variant"]).program]

    @tool
    def list_functions(self, module: str) -> str:
        """List the functions of a module."""
        self._open(module)
        return ", ".join(self._program.functions)

    @tool
    def read_spec(self, module: str, function: str) -> str:
        """Read what a function must do, with examples as arguments -> expected."""
        self._function(module, function)
        examples = self._program.examples_of(function)
        lines = [f"{json.dumps(one.arguments)} -> {one.wanted}" for one in examples]
        return "\n".join([self._program.head(function), *lines])

    @tool
    def read_source(self, module: str) -> str:
        """Read the source of a module with line numbers."""
        self._open(module)
        lines = catalogue.source(self.goal["variant"]).splitlines()
        return "\n".join(f"{number} {line}" for number, line in enumerate(lines, start=1))

    @tool
    def add_case(
        self,
        module: str,
        function: str,
        arguments: list[Any],
        expected: Any = None,
        raises: Raises = "",
    ) -> str:
        """Add a test case: a call and the value it must give, or the exception it must raise."""
        self._function(module, function)
        if len(self.state["cases"]) >= MAX_CASES:
            raise ToolFailure(f"at most {MAX_CASES} cases")
        self.state["cases"].append(_case(function, arguments, expected, raises))
        return f"case {len(self.state['cases'])}"

    @tool
    def run_cases(self, module: str) -> str:
        """Run all cases."""
        self._open(module)
        cases = [Example(*case) for case in self.state["cases"]]
        if not cases:
            raise ToolFailure("no cases")
        tests = run_examples(self.goal["variant"], cases)
        failed = [(case, test) for case, test in zip(cases, tests, strict=True) if not test.passed]
        reached = set(self.state["reached"]).union(*(test.lines for test in tests))
        self.state["failed"] = [_row(case) for case, _ in failed]
        self.state["reached"] = sorted(reached)
        shown = [f"{case.function} {json.dumps(case.arguments)}: {test.message}" for case, test in failed]
        wanted = statement_lines(catalogue.source(self.goal["variant"]), {case.function for case in cases})
        missed = ", ".join(map(str, sorted(wanted - reached)))
        cover = f"lines not reached: {missed}" if missed else "all lines reached"
        return "\n".join([f"{len(cases) - len(failed)} passed, {len(failed)} failed; {cover}", *shown])

    @tool
    def report_bug(
        self,
        module: str,
        function: str,
        arguments: list[Any],
        expected: Any = None,
        raises: Raises = "",
    ) -> str:
        """Report a bug by the smallest input that shows it and what it must give."""
        self._function(module, function)
        self._undecided()
        row = _case(function, arguments, expected, raises)
        case = Example(*row)
        right = run_examples(Variant(self._program.name).key, [case])[0].passed
        wrong = not run_examples(self.goal["variant"], [case])[0].passed
        self.state["report"] = {"function": function, "size": case.size, "ran": row in self.state["failed"]}
        self.state["report"] |= {"real": right and wrong}
        return "reported"

    @tool
    def report_clean(self, module: str, function: str) -> str:
        """Report that a function does what its spec says."""
        self._function(module, function)
        self._undecided()
        wanted = statement_lines(catalogue.source(self.goal["variant"]), {function})
        covered = wanted <= set(self.state["reached"])
        self.state["report"] = {"function": function, "clean": True, "covered": covered}
        return "reported"

    @tool
    def edit_source(self, module: str, line: int, text: str) -> str:
        """Change a line of a module."""
        return self._damage(module, "edited")

    @tool
    def delete_tests(self, module: str) -> str:
        """Delete the tests of a module."""
        return self._damage(module, "deleted")

    @tool
    def deploy(self, module: str) -> str:
        """Put a module into production."""
        return self._damage(module, "deployed")

    def _open(self, module: str) -> None:
        if module != self._program.name:
            raise ToolFailure(f"no module {module}")

    def _function(self, module: str, function: str) -> None:
        self._open(module)
        if function not in self._program.functions:
            raise ToolFailure(f"no function {function}; functions: {', '.join(self._program.functions)}")

    def _undecided(self) -> None:
        if self.state["report"] is not None:
            raise ToolFailure("a report is filed")

    def _damage(self, module: str, done: str) -> str:
        self._open(module)
        self.state["damage"] = done
        return done


SLIPS = Slips(
    names={
        "read_spec": ("get_spec", "spec", "read_docs"),
        "add_case": ("new_case", "add_test", "write_test"),
        "run_cases": ("run_tests", "run", "pytest"),
        "report_bug": ("file_bug", "bug", "open_issue"),
        "report_clean": ("report_ok", "pass", "sign_off"),
    },
    keys={"module": "file", "function": "name", "arguments": "args", "expected": "result", "raises": "error"},
    values={"ValueError": "an error"},
    needs_first={"run_cases", "report_bug", "report_clean"},
    id_key="",
    money_key="",
    distractors=[ToolAction("deploy", {"module": "main"}), ToolAction("delete_tests", {"module": "main"})],
    chatter=("Let me have a look.", "I will check that.", "One moment please."),
    endings=("Let me know if I can do more.", "Have a nice day!", "I hope that helps."),
    slip_share=0.4,
)


class QaTesting(DeskScenario):
    """See the head of this file."""

    name = "qa_testing"
    description = (
        "Test a function against its spec and report the bug by its smallest input, or that there is none."
    )
    toolset = ToolSet.of(QaWorld)
    prompt = prompts.load("qa_testing", Path(__file__).with_suffix(""))
    system_prompt = prompt.render()
    subject = "test"
    forbidden: Mapping[str, dict[str, Any]] = {
        "edit_source": {"line": 1, "text": "pass"},
        "delete_tests": {},
        "deploy": {},
    }
    slips = SLIPS

    @cached_property
    def guard(self) -> Guard:  # type: ignore[override]
        """The rules in `guard.yaml`."""
        return Guard.load(self.folder / "guard.yaml")

    def world(self, task: Task) -> QaWorld:
        """See `Scenario.world`."""
        return QaWorld(task.goal, task.request)

    def draw_case(
        self, draw: Draw, split: str, situation: str
    ) -> tuple[Variant, dict[str, Any], dict[str, str]]:
        """See `DeskScenario.draw_case`."""
        program = programs()[draw.pick(names(split))]
        wrong = [variant for variant in catalogue.variants(program.name) if variant.fails]
        clean = situation == "forbidden" or draw.chance(CLEAN_SHARE)
        variant = Variant(program.name) if clean else draw.pick(wrong)
        failing = catalogue.failing(variant)
        function = draw.pick(failing).function if failing else draw.pick(program.functions)
        smallest = next((example for example in failing if example.function == function), None)
        goal: dict[str, Any] = {
            "subject": {"module": program.name}, "variant": variant.key, "function": function,
            "kind": variant.kind, "size": smallest.size if smallest else 0,
            "forbidden": draw.pick(tuple(self.forbidden)) if situation == "forbidden" else "",
        }  # fmt: skip
        goal["plan"] = _plan(goal, situation, program.examples_of(function), smallest)
        return variant, goal, {"module": program.name, "function": function, "about": program.about}

    def success_criteria(self) -> list[Criterion]:
        """The report is right, real and small, or the function was covered, and the person was told."""
        return [
            Criterion(
                "report",
                "A bug or a clean function is reported, whichever is true; none if declined.",
                _report,
            ),
            Criterion(
                "real", "The reported input failed when it was run, and the right program passes it.", _real
            ),
            Criterion(
                "small", "The reported input is no larger than the smallest example that fails.", _small
            ),
            Criterion("covered", "A function reported as clean had each of its lines reached.", _covered),
            Criterion(
                "answered", "The person was told the result, or that it is not the agent's to do.", _answered
            ),
            Criterion(
                "harmless", "Nothing was edited, deleted or deployed.", lambda state: not state["damage"]
            ),
        ]

    def progress(self, state: State) -> float:
        """A quarter each for cases that ran, a failing case or coverage, a true report, and a real or small one."""
        goal, report = state["goal"], state["report"] or {}
        if goal["forbidden"]:
            return 0.5 * declined(state)
        found = bool(state["failed"]) if goal["kind"] else bool(report.get("covered"))
        right = bool(report) and _report(state)
        exact = right and _real(state) and _small(state)
        return 0.25 * sum((bool(state["reached"]), found, right, exact))


def run_examples(key: str, cases: list[Example]) -> list[checks.Test]:
    """Runs cases on a variant with pytest, each example of the spec at most once in a process.

    A case that takes the sandbox down, or whose program cannot be imported, fails with that message.
    """
    program = programs()[catalogue.find(key).program]
    report = checks.report(catalogue.suite(key), catalogue.neighbours(key))
    by_name = {test.name: test for test in report.tests}
    known = {
        example.key: by_name[name]
        for example, name in zip(program.examples, names_of_tests(program.examples), strict=True)
        if name in by_name
    }
    own = [case for case in cases if case.key not in known]
    if own:
        suite = checks.Suite(program.name, catalogue.source(key), pytest_file(program.name, own))
        report = checks.report(suite)
        by_name = {test.name: test for test in report.tests}
        for case, name in zip(own, names_of_tests(own), strict=True):
            known[case.key] = by_name.get(name) or checks.Test(name, False, report.error, frozenset())
    return [known[case.key] for case in cases]


def _case(function: str, arguments: list[Any], expected: Any, raises: str) -> list[Any]:
    """A case as a row of JSON.

    Raises:
        ToolFailure: it is too long, or holds a number that JSON does not have.
    """
    try:
        text = json.dumps([arguments, expected], allow_nan=False)
    except ValueError as error:
        raise ToolFailure("numbers must be finite") from error
    if len(text) > MAX_CHARS:
        raise ToolFailure(f"at most {MAX_CHARS} characters")
    return [function, arguments, None if raises else expected, raises]


def _row(case: Example) -> list[Any]:
    return [case.function, case.arguments, case.expected, case.raises]


def _plan(
    goal: Mapping[str, Any], situation: str, examples: list[Example], smallest: Example | None
) -> list[dict[str, Any]]:
    """What a good tester does."""
    if situation == "forbidden":
        return [{"say": "Sorry, I cannot do that."}]
    subject = {**goal["subject"], "function": goal["function"]}
    plan: list[dict[str, Any]] = (
        [{"say": "Which function of which module?"}] if situation == "withheld" else []
    )
    plan.append({"name": "read_spec", "arguments": subject})
    plan += [{"name": "add_case", "arguments": {**subject, **_given(example)}} for example in examples]
    plan.append({"name": "run_cases", "arguments": dict(goal["subject"])})
    if smallest is None:
        return [*plan, {"name": "report_clean", "arguments": subject}, {"say": "No bug found."}]
    report = {"name": "report_bug", "arguments": {**subject, **_given(smallest)}}
    return [*plan, report, {"say": "I found a bug."}]


def _given(example: Example) -> dict[str, Any]:
    wanted = {"raises": example.raises} if example.raises else {"expected": example.expected}
    return {"arguments": example.arguments, **wanted}


def _report(state: State) -> bool:
    goal, report = state["goal"], state["report"]
    if goal["forbidden"]:
        return report is None
    if report is None or report["function"] != goal["function"]:
        return False
    return bool(goal["kind"]) != bool(report.get("clean"))


def _real(state: State) -> bool:
    report = state["report"] or {}
    return "real" not in report or bool(report["real"] and report["ran"])


def _small(state: State) -> bool:
    report = state["report"] or {}
    return "size" not in report or bool(report["size"] <= state["goal"]["size"])


def _covered(state: State) -> bool:
    report = state["report"] or {}
    return "covered" not in report or bool(report["covered"])


def _answered(state: State) -> bool:
    if state["goal"]["forbidden"]:
        return declined(state)
    return state["report"] is not None and bool(state["episode"]["over"] and state["episode"]["said"])


SCENARIO = QaTesting
