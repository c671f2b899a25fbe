"""A harness profile: what an agent harness has to be told so that it talks to the gateway, as data.

    # harness_profiles/sdk.yaml
    description: A plain OpenAI client.
    environment:
      OPENAI_BASE_URL: "{base_url}/v1"
      OPENAI_API_KEY: "{key}"
    command: ["python", "ask.py", "{prompt}"]

The core knows no harness by name: everything in which one differs from another stands in its file. A template holds
placeholders from `PLACEHOLDERS`; each is replaced by its value and nothing in a value is looked at again. A command is
a list of arguments that is started as it stands: no shell ever reads a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from melete.errors import ConfigError

PLACEHOLDERS = {
    "base_url": "address of the gateway, without /v1",
    "key": "the session's credential",
    "model": "name of the model to ask for",
    "session": "id of the session",
    "session_dir": "folder of the session, where `files` are written; the harness may keep its own state there",
    "workdir": "folder in which the harness works: the copy of the task, or where the operator stands",
    "prompt": "what the task asks for",
    "parameters": "the variant's parameters as one line of JSON",
    "python": "the Python that runs Melete",
}
"""What a template may name. `{prompt}` is for commands alone."""
_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_LOOKS_LIKE_ONE = re.compile(r"(?<![{$])\{([a-z][a-z_]*)\}(?!\})")

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class TemplateFile(BaseModel):
    """A file that the harness reads: its text, or the name of a file beside the profile."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    text: str | None = Field(None, description="The template itself.")
    source: str | None = Field(None, description="Name of a file beside the profile that holds the template.")

    @model_validator(mode="after")
    def _one_of_both(self) -> TemplateFile:
        if (self.text is None) == (self.source is None):
            raise ValueError("either text or source is needed.")
        return self


class Tried(BaseModel):
    """Whether anybody has seen this profile work, and with what."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    state: Literal["tried", "untried"] = Field(description="Whether it was run for real.")
    version: str | None = Field(None, description="Version of the harness that was run.")
    date: str | None = Field(None, pattern=r"^\d{4}-\d{2}-\d{2}$", description="When, as YYYY-MM-DD.")
    reason: str | None = Field(None, description="Why it was not run.")

    @model_validator(mode="after")
    def _evidence(self) -> Tried:
        if self.state == "tried" and not (self.version and self.date):
            raise ValueError("a profile that was tried names version and date.")
        if self.state == "untried" and not self.reason:
            raise ValueError("a profile that was not tried gives the reason.")
        return self


class HarnessProfile(BaseModel):
    """How one harness is pointed at the gateway and, where it can, run unattended."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field("", description="The file's name, filled in by the reader.")
    description: str = Field(min_length=1, description="One sentence for people.")
    mode: Literal["manual", "command", "batch"] = Field(
        "manual",
        description="manual: a person starts it; command: one process a session; batch: one process for many sessions, "
        "with JSON lines in and out.",
    )
    environment: dict[VariableName, str] = Field({}, description="Variables that it is given, as templates.")
    unset: list[VariableName] = Field([], description="Variables that are taken away from it.")
    files: dict[str, TemplateFile] = Field(
        {}, description="Files written into {session_dir}, path to template."
    )
    command: list[str] = Field([], description="How it runs without a person, as a list of arguments.")
    version_command: list[str] = Field([], description="What prints its version, as a list of arguments.")
    installed_in: str | None = Field(
        None,
        pattern=r"^[a-z0-9_]+$",
        description="Environment of tools/envs.py whose programs are found first, where it was made.",
    )
    status: Tried = Field(description="Whether it was run for real.")
    notes: str = Field("", description="What a user has to know.")

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, TemplateFile]) -> dict[str, TemplateFile]:
        for name in files:
            inside("files", name)
        return files

    @model_validator(mode="after")
    def _templates(self) -> HarnessProfile:
        for key, text in self.environment.items():
            known(f"environment.{key}", text, without=("prompt",))
        for number, text in enumerate(self.command):
            known(f"command.{number}", text)
        for number, text in enumerate(self.version_command):
            known(f"version_command.{number}", text, without=("prompt", "key"))
        for name, file in self.files.items():
            known(f"files.{name}", file.text or "", without=("prompt",))
        if self.mode != "manual" and not self.command:
            raise ValueError(f"a harness of mode {self.mode} needs a command.")
        if any("{key}" in text for text in self.command):
            raise ValueError(
                "the key goes into the environment or a file; a command line can be read by others."
            )
        return self


def templates(profile: HarnessProfile, beside: Path) -> dict[str, str]:
    """Path to template of the files that a profile writes, those beside it read.

    Raises:
        ConfigError: a source is missing, or no text.
    """
    found = {}
    for name, file in profile.files.items():
        source = beside / str(file.source)
        try:
            found[name] = source.read_text(encoding="utf-8") if file.text is None else file.text
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source}: the template of a harness cannot be read ({error}).") from error
    return found


def known(place: str, template: str, without: tuple[str, ...] = ()) -> None:
    """Sees that a template names only what there is.

    Raises:
        ValueError: a placeholder that is not known, or has no value here.
    """
    for found in _LOOKS_LIKE_ONE.findall(template):
        if found not in PLACEHOLDERS or found in without:
            allowed = ", ".join(name for name in PLACEHOLDERS if name not in without)
            raise ValueError(f"{place} names {{{found}}}, which has no value there. Known: {allowed}.")


def inside(what: str, name: str) -> None:
    """Sees that a path stays in the folder that it is put into.

    Raises:
        ValueError: it is absolute, climbs out or names nothing.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{what}: {name!r} has to be a path inside the folder, without '..'.")


def render(template: str, values: Mapping[str, str]) -> str:
    """A template with its placeholders replaced, each once; what a value holds is left as it is."""
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)
