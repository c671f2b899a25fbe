"""Solved if pytest passes, in the sandbox, over a copy of what the harness left; the score is the share that passed.

    checker:
      pytest: {tests: {test_greet.py: "from greet import greet\\ndef test_it(): assert greet('Eva') == 'Eva!'\\n"}}

Only the card's tests run. Their files win over what the harness left under their names, and its own `conftest.py`,
`pytest.ini` and the like are left out, as they could switch tests off.
"""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict, Field, field_validator

from melete.bench.checkers import Evidence, Verdict, _jailed
from melete.bench.harness_profile import inside
from melete.evals.sandbox import Limits

SWITCHES = (
    "conftest.py", "pytest.ini", ".pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml", "sitecustomize.py",
)  # fmt: skip
_PROGRAM = """
import json, os
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
import pytest
class _Count:
    def __init__(self):
        self.passed = self.failed = 0
    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed += 1
        elif report.when == "call" and report.passed:
            self.passed += 1
        elif report.skipped:
            self.failed += 1
    def pytest_collectreport(self, report):
        self.failed += report.failed
_count = _Count()
_options = ["-q", "-p", "no:cacheprovider", "--rootdir=.", "--confcutdir=.", "--tb=line"]
_code = int(pytest.main([*_options, *{tests!r}], [_count]))
sys.stdout.flush()
print("\\n{mark}" + json.dumps([_count.passed, _count.failed]))
sys.exit(_code)
"""
MARK = "melete-counted "


class Options(BaseModel):
    """The tests and what they may use."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    tests: dict[str, str] = Field(min_length=1, description="Test files, path to text.")
    files: dict[str, str] = Field({}, description="Further files of the judge, path to text.")
    timeout_s: float = Field(60.0, gt=0, le=600, description="Seconds they may take.")
    memory_mb: int = Field(1024, ge=64, le=16384, description="Megabytes they may use.")

    @field_validator("tests", "files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            inside("files", name)
        return files


def check(options: Options, evidence: Evidence) -> Verdict:
    """Runs the tests and counts them."""
    judged = _jailed.judge(
        _PROGRAM.format(tests=list(options.tests), mark=MARK),
        evidence.workdir,
        files={**options.files, **options.tests},
        without=SWITCHES,
        limits=Limits(timeout_s=options.timeout_s, memory_mb=options.memory_mb),
        packages=True,
    )
    passed, failed = _counts(judged.output)
    if not passed + failed:
        return Verdict(False, 0.0, judged.note or "no test ran")
    solved = judged.passed and not failed
    return Verdict(solved, passed / (passed + failed), f"{passed} of {passed + failed} tests passed")


def _counts(output: str) -> tuple[int, int]:
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if not lines:
        return 0, 0
    passed, failed = json.loads(lines[-1].removeprefix(MARK))
    return int(passed), int(failed)
