"""Sources and documentation of the running Python: real code and prose that is on every machine (PSF licence).

Documents are the language reference's topics, the documentation of each module written out as prose, and each module's
source. Left out: tests, IDLE, lib2to3, the character tables of `encodings`, and installed packages. A module's prose
and source fall on the same side of the split, which is drawn by a hash of the module's name. The content, and so the
fingerprint, is that of the running Python; the version is Python's.
"""

from __future__ import annotations

import ast
import hashlib
import platform
import sysconfig
import threading
import warnings
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

from melete.datasets.dataset import Dataset, Shard
from melete.datasets.manifest import FileEntry, Manifest, Source
from melete.datasets.readers import Item
from melete.errors import DatasetError

LEFT_OUT = {
    "__pycache__", "dist-packages", "encodings", "idle_test", "idlelib", "lib2to3", "site-packages", "test", "tests",
}  # fmt: skip
VAL_FRACTION = 0.03
SHARDS = {"train": 8, "val": 1}
LARGEST_BYTES = 300_000  # beyond it are generated tables
MIN_PROSE_CHARS = 200
PARSING = threading.Lock()
"""Held while a source is parsed: CPython 3.11 counts the depth of all threads' parsers together, and raises a
`SystemError` where a callback of the garbage collector lets another thread parse in between (gh-106905)."""


def open() -> Dataset:
    """The standard library of the running Python as a text dataset.

    Raises:
        DatasetError: this Python came without its sources.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    manifest = _manifest(root)

    def locate(file: str) -> Path:
        return root / manifest.entry(file).path

    def count(split: str) -> int:
        return sum(1 for path in manifest.splits[split] for _ in _documents(root, path))

    shards = {split: partial(_shards, manifest, root, split) for split in manifest.splits}
    return Dataset(manifest, manifest.fingerprint, shards, locate, count)


@lru_cache(1)
def _manifest(root: Path) -> Manifest:
    entries: list[FileEntry] = []
    splits: dict[str, list[str]] = {"train": [], "val": []}
    places: dict[str, bytes] = {}
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root).as_posix()
        if LEFT_OUT & set(path.split("/")) or not file.stat().st_size > 0:
            continue
        data = file.read_bytes()
        if len(data) > LARGEST_BYTES and path != "pydoc_data/topics.py":
            continue
        entries.append(FileEntry(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
        places[path] = hashlib.sha256(path.encode()).digest()
        share = int.from_bytes(places[path][:4], "big") / 2**32
        splits["val" if share < VAL_FRACTION and path != "pydoc_data/topics.py" else "train"].append(path)
    if not splits["train"] or not splits["val"]:
        raise DatasetError(
            f"This Python has no sources of its standard library in {root}.",
            next_step="Use a Python that has them, or give another text dataset.",
        )
    return Manifest(
        name="stdlib",
        version=platform.python_version(),
        kind="text",
        description="Sources and documentation of the running Python's standard library.",
        licence="PSF-2.0",
        licence_notes="Python Software Foundation License; some modules carry their own permissive notices.",
        sources=[
            Source(repository="github.com/python/cpython", path="Lib", commit=f"v{platform.python_version()}")
        ],
        how_to_get="It comes with Python.",
        changes="Tests, IDLE, lib2to3 and character tables left out; documentation also written out as prose.",
        use="Text that is always there: tests, the demo without other data.",
        known_issues=["Code-heavy: a model trained on it alone speaks like documentation."],
        splits={split: sorted(paths, key=places.__getitem__) for split, paths in splits.items()},
        files=entries,
    )


def _shards(manifest: Manifest, root: Path, split: str) -> list[Shard]:
    paths = manifest.splits[split]
    count = SHARDS[split]
    return [
        Shard(f"{manifest.id}/{split}-{i}", "text", partial(_read, root, tuple(paths[i::count])))
        for i in range(count)
    ]


def _read(root: Path, paths: tuple[str, ...], start: int) -> Iterator[Item]:
    items = (Item(path, 1, text) for path in paths for text in _documents(root, path))
    return islice(items, start, None)


def _documents(root: Path, path: str) -> Iterator[str]:
    """The prose of a module, if it has some, then its source."""
    try:
        source = (root / path).read_bytes().decode("utf-8")
        with PARSING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escape sequences in the library are not ours to report
            tree = ast.parse(source)
    except (UnicodeDecodeError, SyntaxError):
        return  # a few files are written in another encoding on purpose
    except OSError as error:
        raise DatasetError(f"stdlib: {path} cannot be read ({error.strerror}).") from error
    if path == "pydoc_data/topics.py":
        yield from _topics(tree)
        return
    prose = _prose(tree, path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    if len(prose) >= MIN_PROSE_CHARS:
        yield prose
    yield source


def _topics(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for value in node.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value


def _prose(tree: ast.Module, module: str) -> str:
    """Docstrings of a module, its classes and functions, each under its signature."""
    parts = [f"{module}\n\n{ast.get_docstring(tree) or ''}".strip()]

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{prefix}{child.name}"
                text = ast.get_docstring(child)
                if text and not child.name.startswith("_"):
                    inside = "" if isinstance(child, ast.ClassDef) else f"({ast.unparse(child.args)})"
                    parts.append(f"{name}{inside}\n\n{text}")
                visit(child, f"{name}.")

    visit(tree, "")
    return "\n\n".join(parts) + "\n"
