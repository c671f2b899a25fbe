"""Real tools on small programs: ruff by its argument list, pytest inside the sandbox; results kept by content.

A program's text goes to ruff on its standard input; nothing is ever given to a shell. pytest runs in
`melete.evals.sandbox` with the installed packages read-only; many suites share one start of it (about 0.4 s of CPU),
each with its own folder and modules (about 25 ms), and a test that takes longer than a second fails. Results are
remembered by the content of source and tests for the life of the process, so that an episode that repeats a program
costs nothing.

Limits: what a test prints is dropped; a suite that takes the whole sandbox down (memory, time) is run again alone and
then reported as an error.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from melete.errors import MissingExtraError
from melete.evals import sandbox

RULES = ("E4", "E7", "E9", "F", "B", "A", "SIM115", "T201")
"""What the linter looks for: errors, unused things, likely bugs, shadowed builtins, open files, left-over prints."""
EXTRA = "scenarios"
LIMITS = sandbox.Limits(timeout_s=120.0, memory_mb=1024, output_bytes=4_000_000)
ALONE = sandbox.Limits(timeout_s=30.0, memory_mb=1024, output_bytes=1_000_000)


@dataclass(frozen=True)
class Finding:
    """What the linter says of a line."""

    line: int
    code: str
    name: str
    message: str


@dataclass(frozen=True)
class Suite:
    """A module and the pytest file that tests it."""

    module: str
    source: str
    tests: str


@dataclass(frozen=True)
class Test:
    """How one test ended: `message` is pytest's, in one line; `lines` of the module were executed."""

    name: str
    passed: bool
    message: str
    lines: frozenset[int]


@dataclass(frozen=True)
class Report:
    """What pytest says of a suite; `error` if it could not be collected or did not end."""

    tests: tuple[Test, ...]
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether there are tests and all pass."""
        return not self.error and bool(self.tests) and all(test.passed for test in self.tests)

    @property
    def failed(self) -> list[Test]:
        """The tests that did not pass."""
        return [test for test in self.tests if not test.passed]


@lru_cache(maxsize=1)
def require() -> None:
    """Says early that the tools are there, so that their absence is never taken for an agent's failure.

    Raises:
        MissingExtraError: ruff or pytest is not installed.
        SandboxError: the sandbox cannot be set up here.
    """
    for library in ("ruff", "pytest"):
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError(library, EXTRA)
    sandbox.run("")


@lru_cache(maxsize=4096)
def lint(source: str) -> tuple[Finding, ...]:
    """What ruff finds in a source, in order of lines; about 8 ms the first time.

    Raises:
        MissingExtraError: ruff is not installed.
    """
    require()
    import ruff  # type: ignore[import-untyped, unused-ignore]

    command = [ruff.find_ruff_bin(), "check", "--isolated", "--no-cache", "--exit-zero"]
    command += ["--output-format", "json", "--select", ",".join(RULES), "--stdin-filename", "module.py", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True, timeout=60)
    found = [
        Finding(row["location"]["row"], row["code"] or "syntax", row.get("name") or "", row["message"])
        for row in json.loads(done.stdout)
    ]
    return tuple(sorted(found, key=lambda finding: (finding.line, finding.code)))


_reports: dict[Suite, Report] = {}
_one_at_a_time = threading.Lock()
"""Held while suites run, so that episodes in several threads do not test the same program at once."""


def report(suite: Suite, others: Sequence[Suite] = ()) -> Report:
    """Runs a suite with pytest, and in the same start `others` that will be asked for soon.

    Raises:
        MissingExtraError: pytest is not installed.
        SandboxError: the sandbox could not be set up.
    """
    if suite not in _reports:
        reports([suite, *others])
    return _reports[suite]


def reports(suites: Sequence[Suite]) -> list[Report]:
    """Runs suites with pytest in one sandbox; those whose result is known are not run again. Raises as `report`."""
    require()
    with _one_at_a_time:
        missing = [suite for suite in dict.fromkeys(suites) if suite not in _reports]
        found = _run(missing, LIMITS) if missing else []
        for suite in missing[len(found) :]:  # the one that took the sandbox down, and those after it
            alone = _run([suite], ALONE)
            found.append(alone[0] if alone else Report((), "the tests did not end"))
        _reports.update(zip(missing, found, strict=True))
    return [_reports[suite] for suite in suites]


def _run(suites: list[Suite], limits: sandbox.Limits) -> list[Report]:
    """Reports of the suites that ended, in order."""
    program = f"SUITES = {json.dumps([asdict(suite) for suite in suites])!r}\n{DRIVER}"
    result = sandbox.run(program, limits, packages=True)
    lines = [line[len(MARK) :] for line in result.stdout.splitlines() if line.startswith(MARK)]
    return [_report(json.loads(line)) for line in lines]


def _report(row: dict[str, Any]) -> Report:
    tests = [
        Test(one["name"], one["passed"], one["message"], frozenset(one["lines"])) for one in row["tests"]
    ]
    return Report(tuple(tests), row["error"])


MARK = "@suite "
DRIVER = '''
import collections, contextlib, io, json, os, signal, sys

os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
import pytest

HOME, OUT, SUITES = os.getcwd(), sys.stdout, json.loads(SUITES)


def too_slow(number, frame):
    raise TimeoutError("took longer than a second")


def limit(seconds):
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)  # CPU time, so that a busy machine fails no test


class Collector:
    """Reports each suite when its last test has ended; suites are folders, numbered in order."""

    def __init__(self):
        self.rows = collections.defaultdict(lambda: {"tests": [], "error": ""})
        self.left, self.lines, self.path, self.said = collections.Counter(), set(), "", 0

    def trace(self, frame, event, argument):
        if frame.f_code.co_filename != self.path:
            return None
        if event == "line":
            self.lines.add(frame.f_lineno)
        return self.trace

    def say(self):
        while self.said < len(SUITES) and not self.left[self.said]:
            print(MARK + json.dumps(self.rows[self.said]), file=OUT, flush=True)
            self.said += 1

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector):
        if isinstance(collector, pytest.Module):
            sys.path[0] = str(collector.path.parent)
            sys.modules.pop(SUITES[int(collector.path.parent.name)]["module"], None)
        limit(1.0)
        yield
        limit(0.0)

    def pytest_collectreport(self, report):
        if report.failed:
            lines = [line for line in str(report.longrepr).splitlines() if line.startswith("E ")]
            number = int(report.nodeid.split("/")[0])
            self.rows[number]["error"] = lines[-1][1:].strip() if lines else "could not be collected"

    def pytest_collection_finish(self, session):
        self.left.update(int(item.path.parent.name) for item in session.items)
        self.say()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item):
        number = item.path.parent.name
        self.lines, self.path = set(), os.path.join(HOME, number, SUITES[int(number)]["module"] + ".py")
        limit(1.0)
        sys.settrace(self.trace)
        yield
        sys.settrace(None)
        limit(0.0)

    def pytest_runtest_logreport(self, report):
        if report.when != "call":
            return
        number = int(report.nodeid.split("/")[0])
        crash = getattr(report.longrepr, "reprcrash", None)
        message = " ".join(crash.message.split()) if crash else ""
        message = message.removeprefix("AssertionError: ").removesuffix(" Use -v to get more diff")
        row = {"name": report.nodeid.split("::")[-1], "passed": report.passed}
        self.rows[number]["tests"].append({**row, "message": message[:400], "lines": sorted(self.lines)})
        self.left[number] -= 1
        self.say()


signal.signal(signal.SIGVTALRM, too_slow)
files = []
for number, suite in enumerate(SUITES):
    folder = os.path.join(HOME, str(number))
    os.mkdir(folder)
    files.append(os.path.join(folder, "test_" + suite["module"] + ".py"))
    for name, text in ((os.path.join(folder, suite["module"] + ".py"), suite["source"]), (files[-1], suite["tests"])):
        with open(name, "w") as file:
            file.write(text)
sys.path.insert(0, HOME)
options = ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--import-mode=importlib"]
with contextlib.redirect_stdout(io.StringIO()):
    pytest.main([*options, "--continue-on-collection-errors", "--rootdir", HOME, *files], plugins=[Collector()])
'''.replace("MARK", repr(MARK))
