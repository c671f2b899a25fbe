"""Solved if a Python program ends with exit code 0, in the sandbox, over a copy of what the harness left.

    checker:
      command: {command: [python, check.py, --strict], files: {check.py: "…"}}

The sandbox starts no further program, so the command is `python FILE …` or `python -m MODULE …`; a file of the card
wins over what the harness left under its name.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from melete.bench.checkers import Evidence, Verdict, _jailed
from melete.bench.harness_profile import inside
from melete.evals.sandbox import Limits


class Options(BaseModel):
    """The command and what it may use."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    command: list[str] = Field(min_length=2, description="python FILE …, or python -m MODULE …")
    files: dict[str, str] = Field({}, description="The judge's own files, path to text.")
    packages: bool = Field(False, description="Whether installed packages can be imported.")
    timeout_s: float = Field(30.0, gt=0, le=600, description="Seconds it may take.")
    memory_mb: int = Field(1024, ge=64, le=16384, description="Megabytes it may use.")

    @field_validator("command")
    @classmethod
    def _python(cls, command: list[str]) -> list[str]:
        if command[0] not in ("python", "python3") or (command[1] == "-m" and len(command) < 3):
            raise ValueError("the sandbox runs Python only: [python, FILE, …] or [python, -m, MODULE, …].")
        if command[1].startswith("-") and command[1] != "-m":
            raise ValueError(
                f"{command[1]!r} is not known here: [python, FILE, …] or [python, -m, MODULE, …]."
            )
        return command

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            inside("files", name)
        return files


def check(options: Options, evidence: Evidence) -> Verdict:
    """Runs the command and reads its exit code."""
    if options.command[1] == "-m":
        name, arguments = options.command[2], options.command[2:]
        run = f"runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    else:
        name, arguments = options.command[1], options.command[1:]
        run = f"runpy.run_path({name!r}, run_name='__main__')"
    judged = _jailed.judge(
        f"sys.argv[:] = {arguments!r}\n{run}",
        evidence.workdir,
        files=options.files,
        limits=Limits(timeout_s=options.timeout_s, memory_mb=options.memory_mb),
        packages=options.packages,
    )
    return Verdict(judged.passed, float(judged.passed), judged.note)
