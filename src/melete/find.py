"""Names in a folder, without importing what they name; loading one of them by name.

A thing is a file and its name is its id: `names("melete.llm.processes")` lists the files of that package, `load`
imports one of them. A miss is an `UnknownNameError` with the known names and the closest one. Folders are looked for
along `melete.__path__`, so that a package outside this tree can bring things of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import melete
from melete.errors import MissingExtraError, UnknownNameError

EXTRA_OF = {
    "torch": "train", "rustbpe": "train", "tiktoken": "train", "safetensors": "train",
    "transformers": "hf", "peft": "hf", "fastapi": "serve", "uvicorn": "serve", "llguidance": "serve",
    "psycopg": "postgres", "textual": "ui", "textual_plotext": "ui", "websockets": "ui",
    "prometheus_client": "gateway", "pyarrow": "bench",
    "gymnasium": "agents", "jsonschema": "agents", "openai": "agents", "httpx": "agents",
    "langchain": "langchain", "langchain_openai": "langchain", "langgraph": "langchain",
    "autogen_agentchat": "autogen", "autogen_ext": "autogen", "crewai": "crewai", "sky": "cloud",
}  # fmt: skip


def folder_of(package: str) -> Path:
    """Folder of a package of ours, such as `melete.evals.tasks`, found without importing it."""
    places = [Path(root).joinpath(*package.split(".")[1:]) for root in melete.__path__]
    return next((place for place in places if place.is_dir()), places[0])


def names(package: str, suffix: str = ".py") -> list[str]:
    """Sorted names of the files in a package's folder; names that start with `_` are private."""
    folder = folder_of(package)
    return sorted(p.stem for p in folder.glob(f"*{suffix}") if not p.name.startswith("_"))


def path(package: str, name: str, kind: str, suffix: str = ".yaml") -> Path:
    """Path of a data file by name.

    Raises:
        UnknownNameError: no file has that name.
    """
    known = names(package, suffix)
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return folder_of(package) / f"{name}{suffix}"


def load(package: str, name: str, kind: str) -> ModuleType:
    """Imports `package.name`.

    Args:
        package: dotted package, such as `melete.evals.tasks`.
        name: file name without `.py`.
        kind: word for the error message, such as `evaluation task`.

    Raises:
        UnknownNameError: no file has that name.
        MissingExtraError: the file needs a library that is not installed.
    """
    known = names(package)
    if name not in known:
        raise UnknownNameError(kind, name, known)
    with named_extras():
        return importlib.import_module(f"{package}.{name}")


@contextmanager
def named_extras() -> Iterator[None]:
    """Says of a library that turns out to be missing which extra it belongs to; of any other, nothing.

    Raises:
        MissingExtraError: a library of an extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library in EXTRA_OF:
            raise MissingExtraError(library, EXTRA_OF[library]) from error
        raise


def processes() -> list[str]:
    """All process names, `system.name`, such as `llm.pretrain`."""
    found = [folder for root in melete.__path__ for folder in Path(root).glob("*/processes")]
    systems = sorted(folder.parent.name for folder in found if folder.is_dir())
    return [f"{system}.{name}" for system in systems for name in names(f"melete.{system}.processes")]


def process(name: str) -> ModuleType:
    """Imports the file of a process by its name `system.name`.

    Raises:
        UnknownNameError: no such process.
    """
    known = processes()
    if name not in known:
        raise UnknownNameError("process", name, known)
    system, _, stem = name.partition(".")
    return load(f"melete.{system}.processes", stem, "process")


def first_sentence(file: Path) -> str:
    """First line of a Python file's docstring, read as text: the help of the thing that the file is."""
    with file.open(encoding="utf-8") as lines:
        head = next((line for line in lines if line.strip()), "")
    return head.strip().strip('"').strip("'").strip()
