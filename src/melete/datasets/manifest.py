"""The manifest of a dataset: what it holds, under which licence, where it came from and how to get it.

Manifests of known public sets are the YAML files in `known/`; a set that a user adds has a `manifest.json` in its own
folder. Both are read strictly: an unknown key or a wrong type is an error that names the file and the key.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from melete.errors import DatasetError

Kind = Literal["text", "conversations", "rows", "files"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileEntry(_Strict):
    """One file of a dataset; `rows` is absent where a file is not a list of rows."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int | None = Field(default=None, ge=0)


class Source(_Strict):
    """A public place where the data was taken from, pinned to one commit."""

    repository: str
    path: str = ""
    commit: str = ""
    date: str = ""
    note: str = ""


class Manifest(_Strict):
    """Everything that is known about a dataset without opening it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")
    kind: Kind
    description: str
    licence: str
    licence_notes: str = ""
    share_alike: bool = False
    sources: list[Source] = []
    how_to_get: str = ""
    changes: str = Field(
        default="", description="What was cut, filtered or converted on the way from the source."
    )
    known_issues: list[str] = []
    use: str = ""
    splits: dict[str, list[str]] = Field(default={}, description="Split name to paths of its files.")
    drawn_val: bool = Field(
        default=False, description="Whether `val` is drawn from `train` by a hash of each item."
    )
    adapter: str | None = Field(
        default=None, description="File in `adapters/` that reads the rows as conversations."
    )
    files: list[FileEntry] = []

    @property
    def id(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def bytes(self) -> int:
        """Bytes of all files on disk."""
        return sum(entry.bytes for entry in self.files)

    @property
    def fingerprint(self) -> str:
        """sha256 over the paths and checksums of the files: the identity of the content."""
        lines = sorted(f"{entry.path} {entry.sha256}\n" for entry in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def entry(self, path: str) -> FileEntry:
        """The entry of one file.

        Raises:
            DatasetError: the manifest has no such file.
        """
        for entry in self.files:
            if entry.path == path:
                return entry
        raise DatasetError(
            f"{self.id} has no file {path!r}.",
            allowed=f"It holds: {', '.join(entry.path for entry in self.files)}.",
        )


def read(path: Path) -> Manifest:
    """Reads a manifest from YAML or JSON.

    Raises:
        DatasetError: it cannot be read, or a key is unknown or of a wrong type.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values: Any = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_YAML_LOADER)
        return Manifest.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise DatasetError(f"{path}: {key}: {problem['msg']}.") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DatasetError(f"{path} is not a dataset manifest: {error}.") from error


_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
