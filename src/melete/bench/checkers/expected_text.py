"""Solved if a text is found in a file that the harness left, or in what it printed.

    checker:
      expected_text: {text: "42", file: answer.txt}
      # or: expected_text: {pattern: "^total: 4[0-9]$"}      in what the harness printed

A pattern is matched in the sandbox with a time limit, because a pattern on a long text can take for ever.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from melete.bench.checkers import Evidence, Verdict, evidence_file
from melete.bench.harness_profile import inside
from melete.evals import sandbox

MATCH_TIMEOUT_S = 5.0


class Options(BaseModel):
    """What is looked for, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    text: str | None = Field(None, min_length=1, description="Text that has to be there.")
    pattern: str | None = Field(
        None, min_length=1, description="Regular expression that has to match somewhere."
    )
    file: str | None = Field(
        None, description="File of the working copy; by default what the harness printed."
    )
    ignore_case: bool = Field(False, description="Whether large and small letters are the same.")
    whole: bool = Field(
        False, description="Whether the text has to be all there is, spaces at the ends apart."
    )

    @field_validator("file")
    @classmethod
    def _inside(cls, file: str | None) -> str | None:
        if file is not None:
            inside("file", file)
        return file

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}.") from error
        return pattern

    @model_validator(mode="after")
    def _one_of_both(self) -> Options:
        if (self.text is None) == (self.pattern is None):
            raise ValueError("either text or pattern is needed.")
        return self


def NEEDS_OUTPUT(values: dict[str, Any]) -> bool:
    """Whether the harness's own words are looked at."""
    return "file" not in values


def check(options: Options, evidence: Evidence) -> Verdict:
    """Looks for the text or the pattern."""
    if options.file is None:
        if evidence.output is None:
            return Verdict(
                False, 0.0, "what the harness printed was not caught; start it with melete bench exec"
            )
        found = evidence.output
    else:
        path = evidence_file(evidence.workdir, options.file)
        if path is None:
            return Verdict(False, 0.0, f"there is no file {options.file}")
        found = path.read_text(encoding="utf-8", errors="replace")
    solved = matches(options, found)
    return Verdict(solved, float(solved), "" if solved else "the expected text is not there")


def matches(options: Options, found: str) -> bool:
    """Whether a text is as it should be."""
    if options.pattern is not None:
        return pattern_found(options.pattern, found, ignore_case=options.ignore_case, whole=options.whole)
    wanted = str(options.text)
    if options.ignore_case:
        wanted, found = wanted.casefold(), found.casefold()
    return wanted.strip() == found.strip() if options.whole else wanted in found


def pattern_found(pattern: str, text: str, *, ignore_case: bool, whole: bool) -> bool:
    """Whether a regular expression matches, found out in the sandbox; False if it takes too long."""
    flags = re.MULTILINE | (re.IGNORECASE if ignore_case else 0)
    how = "fullmatch" if whole else "search"
    subject = text.strip() if whole else text
    program = (
        f"import json, re\nsubject = json.loads({json.dumps(subject)!r})\n"
        f"raise SystemExit(0 if re.{how}({pattern!r}, subject, {int(flags)}) else 1)"
    )
    return sandbox.run(program, sandbox.Limits(timeout_s=MATCH_TIMEOUT_S)).outcome == "finished"
