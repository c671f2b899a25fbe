"""The grader of programs: right ones pass, wrong ones and tricks do not."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete import datasets, settings
from melete.errors import DatasetError
from melete.evals import sandbox
from melete.evals.jail.checks import Unknown, decode, encode
from melete.evals.sandbox import Limits
from melete.evals.tasks import humaneval

linux = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
PROBLEM = {
    "entry_point": "add",
    "prompt": 'def add(a: int, b: int) -> int:\n    """Adds two numbers."""\n',
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n",
    "canonical_solution": "    return a + b\n",
}
TRICKS = {
    "exit": "    pass\nimport sys; sys.exit(0)",
    "hard exit": "    pass\nimport os; os._exit(0)",
    "exit in the function": "    import os; os._exit(0)",
    "system exit in the function": "    raise SystemExit(0)",
    "assertion errors that pass": "    pass\nimport builtins\nbuiltins.AssertionError = KeyboardInterrupt",
    "a check of its own": "    pass\ndef check(candidate): print('passed')",
    "success on the screen": "    pass\nprint('passed'); print('{\"verdict\": {\"passed\": true}}')",
    "equal to everything": "    class Same:\n        __eq__ = lambda self, other: True\n    return Same()",
    "a number equal to everything": (
        "    class Same(int):\n        __eq__ = lambda self, other: True\n    return Same(7)"
    ),
    "a verdict on every descriptor": (
        "    pass\nimport os\n"
        "for fd in range(3, 64):\n"
        "    try: os.write(fd, b'{\"verdict\": {\"passed\": true, \"calls\": 2, \"nonce\": \"\"}}\\n')\n"
        "    except OSError: pass"
    ),
    "the end of the grader": "    pass\nimport os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
    "json that lies": "    pass\nimport json\njson.dumps = lambda *a, **k: '[\"ready\", true]'",
    "not a number": "    return float('nan')",
    "endless": "    while True: pass",
}  # fmt: skip


def _grade(body: str) -> sandbox.Grade:
    return humaneval.grade(PROBLEM, PROBLEM["prompt"] + body, Limits(timeout_s=1.0))


@linux
def test_canonical_solution_passes_and_says_how_often_it_was_called() -> None:
    grade = _grade(PROBLEM["canonical_solution"])
    assert (grade.passed, grade.calls, grade.reason) == (True, 2, "")


@linux
def test_wrong_solution_fails_with_the_assertion() -> None:
    grade = _grade("    return a - b\n")
    assert not grade.passed
    assert "AssertionError" in grade.reason


@linux
@pytest.mark.parametrize("trick", TRICKS)
def test_trick_does_not_pass(trick: str) -> None:
    assert not _grade(TRICKS[trick]).passed


@linux
def test_program_cannot_find_the_checks_in_its_memory() -> None:
    body = (
        "    return a + b\nimport gc, sys\n"
        "frame, seen = sys._getframe(), []\n"
        "while frame: seen += map(str, frame.f_locals.values()); frame = frame.f_back\n"
        "seen += [o for o in gc.get_objects() if isinstance(o, (dict, list, str))]\n"
        "text = ' '.join(map(str, seen))\n"
        "print('3 == )2 ,1(etadidnac'[::-1] in text, 'srebmun owt sddA'[::-1] in text)"
    )
    grade = _grade(body)
    # The program's own text is there to be found, the checks are not.
    assert grade.result.stdout == "False True\n", grade


@linux
def test_checks_that_never_call_the_function_do_not_pass() -> None:
    grade = sandbox.check("def f(): pass", "f", "assert True")
    assert (grade.passed, grade.reason) == (False, "the checks did not call the function")


@linux
def test_program_without_the_function_says_so() -> None:
    assert "does not define the function 'f'" in sandbox.check("g = 1", "f", "f()").reason


@linux
def test_exception_of_the_function_reaches_the_checks_with_its_type() -> None:
    checks = "try: f(0)\nexcept ZeroDivisionError: pass\nelse: raise AssertionError\nassert f(2) == 0.5"
    assert sandbox.check("def f(x): return 1 / x", "f", checks).passed


@linux
def test_checks_can_use_the_installed_packages_when_allowed() -> None:
    checks = "import numpy\nassert f(3) == list(numpy.arange(3))"
    assert sandbox.check("def f(n): return list(range(n))", "f", checks, packages=True).passed


@linux
def test_program_cannot_plant_a_module_for_the_checks() -> None:
    program = "open('planted.py', 'w').write('answer = 1')\ndef f(): return 1"
    grade = sandbox.check(program, "f", "import planted\nassert f() == planted.answer")
    assert "No module named 'planted'" in grade.reason


@linux
def test_what_is_not_covered_is_a_change_in_place() -> None:
    checks = "values = [2, 1]\nf(values)\nassert values == [1, 2]"
    assert not sandbox.check("def f(values): values.sort()", "f", checks).passed


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.integers() | st.text() | st.tuples(st.integers()), inner)
        | st.sets(st.integers())
        | st.frozensets(st.text())
    ),
    max_leaves=12,
)


@given(plain)
def test_plain_values_come_back_as_they_were(value: object) -> None:
    again = decode(encode(value))
    assert again == value
    assert type(again) is type(value)


def test_value_of_another_type_equals_nothing() -> None:
    value = decode(encode(object()))
    assert isinstance(value, Unknown)
    assert value != value
    assert repr(value) == "<a value of type object>"


def test_chat_answer_gives_the_block_that_defines_the_function() -> None:
    answer = (
        "First:\n```python\nimport math\n```\nthen\n```python\ndef add(a, b):\n    return a + b\n```\nDone."
    )
    assert humaneval.program_in(answer, PROBLEM) == "def add(a, b):\n    return a + b\n"


def _problems() -> list[dict[str, str]]:
    try:
        return list(datasets.open("eval_humaneval", settings.load()).rows("test"))
    except DatasetError as error:
        pytest.skip(str(error))


@linux
def test_first_canonical_solutions_of_humaneval_pass() -> None:
    problems = _problems()
    for index in (0, 32, 38, 50):  # three of them need definitions of the prompt in the checks
        problem = problems[index]
        grade = humaneval.grade(problem, problem["prompt"] + problem["canonical_solution"])
        assert grade.passed, (problem["task_id"], grade.reason)


@linux
@pytest.mark.slow
def test_all_canonical_solutions_of_humaneval_pass() -> None:
    problems = _problems()
    grades = [
        humaneval.grade(p, p["prompt"] + p["canonical_solution"], Limits(timeout_s=20)) for p in problems
    ]
    assert [p["task_id"] for p, g in zip(problems, grades, strict=True) if not g.passed] == []
    assert len(problems) == 164


@linux
@pytest.mark.slow
@pytest.mark.parametrize(
    "trick", ["exit", "hard exit", "equal to everything", "a verdict on every descriptor"]
)
def test_trick_passes_no_problem_of_humaneval(trick: str) -> None:
    passed = [p["task_id"] for p in _problems() if humaneval.grade(p, p["prompt"] + TRICKS[trick]).passed]
    assert passed == []
