"""A task card: what is asked, with which files, and how one sees that it was solved.

    # task_cards/greeting.yaml
    prompt: Write a function greet(name) into greet.py that returns "Hello, NAME!".
    files:
      README.md: A small library.
    checker:
      pytest: {tests: {test_greet.py: "from greet import greet\\n…"}}

A card with `scenario` stands for a set: `{name: customer_support, split: held_out, count: 40}` is the cards
`<name>/0` to `<name>/39`, which the scenario's own criteria judge. A card without a checker is judged by a person.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from melete import documents
from melete.bench.harness_profile import inside

LARGEST_FILE_BYTES = 5_000_000


class ScenarioTasks(BaseModel):
    """Tasks of a scenario, by split and number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(min_length=1, description="Name of the scenario.")
    split: str = Field("held_out", min_length=1, description="Split of its requests.")
    count: int = Field(20, ge=1, le=100_000, description="How many tasks.")
    start: int = Field(0, ge=0, description="Number of the first.")


class Repository(BaseModel):
    """A git repository at one commit, of which each session gets a working copy of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    url: str = Field(min_length=1, description="Path (from the card's folder) or https address.")
    commit: str = Field(pattern=r"^[0-9a-f]{7,64}$", description="Commit to work on, in hexadecimal.")

    @field_validator("url")
    @classmethod
    def _known_transport(cls, url: str) -> str:
        if url.startswith("-") or ("::" in url) or ("://" in url and not url.startswith("https://")):
            raise ValueError(f"input should be a path or an https address; found {url!r}.")
        return url


class TaskCard(BaseModel):
    """One task, or a set of tasks of a scenario."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field("", description="The file's name, filled in by the reader.")
    description: str = Field("", description="One sentence for people.")
    prompt: str = Field("", max_length=100_000, description="What is asked.")
    files: dict[str, str] = Field({}, description="Files of the working copy: path to text.")
    folder: str | None = Field(None, description="Folder (from the card's) whose files are copied.")
    repository: Repository | None = Field(None, description="Repository that is copied.")
    scenario: ScenarioTasks | None = Field(None, description="Tasks of a scenario: the card is a set.")
    checker: dict[str, dict[str, JsonValue]] = Field(
        {}, max_length=1, description="Name of a checker to its options; without one a person decides."
    )
    timeout_s: float | None = Field(None, gt=0, le=7 * 86400, description="Seconds that a session may take.")

    @model_validator(mode="after")
    def _one_kind(self) -> TaskCard:
        if self.scenario is not None:
            besides = [
                key for key in ("prompt", "files", "folder", "repository", "checker") if getattr(self, key)
            ]
            if besides:
                raise ValueError(f"a card of a scenario has no {besides[0]}: the scenario brings it.")
        elif not self.prompt.strip():
            raise ValueError("a prompt is needed, or a scenario.")
        if self.folder is not None and self.repository is not None:
            raise ValueError("folder and repository exclude each other.")
        for path in self.files:
            inside("files", path)
            if path.split("/")[0] == ".git":
                raise ValueError("files: .git belongs to git.")
        return self


@dataclass(frozen=True)
class Card:
    """One task as it is played: a card of its own, or one of a set.

    Attributes:
        id: name of the card, or `<name of the set>/<number>`.
        card: what its file says.
        folder: folder of that file, from which its paths go out.
        number: of the task in the scenario's split.
    """

    id: str
    card: TaskCard
    folder: Path
    number: int | None = None

    @property
    def task(self) -> dict[str, Any]:
        """The task as the batch protocol says it."""
        if self.card.scenario is not None:
            scenario = self.card.scenario
            return {"scenario": scenario.name, "split": scenario.split, "number": self.number}
        return {"prompt": self.card.prompt}

    @property
    def has_files(self) -> bool:
        """Whether the task brings something to work on."""
        return bool(self.card.files or self.card.folder or self.card.repository)

    @property
    def document(self) -> dict[str, Any]:
        """What the store keeps: the card as it is in force, with the digests of what lies beside it."""
        written = self.card.model_dump(mode="json")
        written["name"] = self.id
        if self.card.scenario is not None:
            written["scenario"] = self.task
        if self.card.folder is not None:
            written["folder_digest"] = folder_digest(self.folder / self.card.folder)
        return written


def cards(document: documents.Document[TaskCard]) -> list[Card]:
    """The cards that a file stands for: itself, or one for each task of its set."""
    card, folder = document.record, document.path.parent
    if card.scenario is None:
        return [Card(id=card.name, card=card, folder=folder)]
    numbers = range(card.scenario.start, card.scenario.start + card.scenario.count)
    return [Card(id=f"{card.name}/{number}", card=card, folder=folder, number=number) for number in numbers]


def folder_files(folder: Path) -> list[Path]:
    """Regular files below a folder, sorted; links are left out, so that a card takes nothing from elsewhere."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(path for path in found if path.resolve().is_relative_to(folder.resolve()))


def folder_digest(folder: Path) -> str:
    """sha256 over names and contents of a folder's files."""
    from melete.gateway import entities

    return entities.digest(
        {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder_files(folder)
        }
    )
