"""Solved if files that the harness left are as they should be: there, absent, of one digest, or of one text.

    checker:
      file_matches:
        files:
          out/report.md: {text: "# Report\\n"}
          data.csv: {sha256: 9f86d0…}
          draft.md: {absent: true}

The score is the share of files that are as they should be.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from melete.bench.checkers import Evidence, Verdict, evidence_file
from melete.bench.harness_profile import inside


class Wanted(BaseModel):
    """How one file should be; with no key it should be there."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    text: str | None = Field(
        None, description="Its whole text; line ends and spaces at the end of lines apart."
    )
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="sha256 of its bytes, in hexadecimal."
    )
    absent: bool = Field(False, description="Whether it should not be there.")

    @model_validator(mode="after")
    def _one(self) -> Wanted:
        if sum((self.text is not None, self.sha256 is not None, self.absent)) > 1:
            raise ValueError("only one of text, sha256 and absent.")
        return self


class Options(BaseModel):
    """The files that are looked at."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    files: dict[str, Wanted] = Field(
        min_length=1, description="Path in the working copy to how it should be."
    )

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, Wanted]) -> dict[str, Wanted]:
        for name in files:
            inside("files", name)
        return files


def check(options: Options, evidence: Evidence) -> Verdict:
    """Looks at each file."""
    wrong = [name for name, wanted in options.files.items() if not _fits(wanted, evidence.workdir, name)]
    count = len(options.files)
    return Verdict(
        not wrong, (count - len(wrong)) / count, f"not as expected: {', '.join(wrong)}" if wrong else ""
    )


def _fits(wanted: Wanted, workdir: Path, name: str) -> bool:
    path = evidence_file(workdir, name)
    if wanted.absent:
        return not (workdir / name).exists() and not (workdir / name).is_symlink()
    if path is None:
        return False
    data = path.read_bytes()
    if wanted.sha256 is not None:
        return hashlib.sha256(data).hexdigest() == wanted.sha256
    return wanted.text is None or _lines(data.decode("utf-8", "replace")) == _lines(wanted.text)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
