"""The law of imports, read from the source with `ast`: lower floors never import higher ones, systems meet nowhere.

The rooms and what each may import stand in `MAY`; a room that is new must be entered there, which is the moment to
think about it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import melete

SOURCE = Path(melete.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

GROUND = {
    "errors", "settings", "find", "records", "documents", "supervision", "runs", "datasets", "store", "metrics",
    "actions", "gateway", "access",
}  # fmt: skip
MAY = {
    "errors": set[str](),
    "settings": {"errors"},
    "find": {"errors"},
    "records": {"errors"},
    "documents": {"errors", "find"},
    "supervision": {"errors"},
    "access": {"errors", "settings", "records", "store"},
    "metrics": {"errors"},
    "runs": {"errors", "settings", "find", "records", "documents"},
    "datasets": {"errors", "settings", "find", "records", "runs"},
    "store": {"errors", "settings", "find", "records", "runs"},
    "actions": {"errors", "settings", "find", "records", "runs", "datasets"},
    "gateway": GROUND - {"datasets", "actions"},
    "evals": GROUND,
    "llm": {*GROUND, "evals"},
    "serve": {*GROUND, "evals", "llm"},
    "agents": {*GROUND, "evals", "llm", "serve"},
    "bench": {*GROUND, "evals"},
    "jobs": GROUND,
    "api": GROUND,
    "ui": {*GROUND, "api"},
    "cli": {*GROUND, "jobs"},
    "__main__": {"cli"},
}
"""Room to the rooms that it may import, besides itself."""
INSIDE_FUNCTIONS = {
    "cli": {"serve", "llm", "evals", "agents", "bench", "api", "ui"},
    "api": {"serve", "llm", "evals", "agents", "bench", "jobs", "ui"},
}
"""What the roof may import besides, where the import stands inside a function."""
QUICK = {
    "torch", "transformers", "peft", "fastapi", "uvicorn", "sqlalchemy", "alembic", "litellm", "jinja2",
    "gymnasium", "openai", "langchain", "langgraph", "autogen_agentchat", "crewai", "sky",
    "pyarrow", "psycopg", "prometheus_client", "httpx", "textual", "websockets",
}  # fmt: skip
"""Libraries that no file of the command line and no process file imports at its top."""


def room(file: Path) -> str:
    part = file.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


def imports(file: Path) -> Iterator[tuple[str, bool, int]]:
    """Dotted names that a file imports, whether inside a function, and the line; type-checking imports are left out."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool, int]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, inside, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}:{child.lineno}: imports are written in full"
                for alias in child.names:
                    yield f"{child.module}.{alias.name}", inside, child.lineno
            else:
                yield from walk(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), inside=False)


def broken(file: Path) -> list[str]:
    """What in a file breaks the law."""
    own = room(file)
    found = []
    for name, inside, line in imports(file):
        parts = name.split(".")
        if parts[0] != "melete" or len(parts) < 2 or parts[1] == "__version__":
            continue
        allowed = {own, *MAY[own], *(INSIDE_FUNCTIONS.get(own, set()) if inside else set())}
        if parts[1] not in allowed:
            found.append(f"{file.relative_to(SOURCE)}:{line}: {own} may not import {name}")
    return found


def test_every_room_has_its_place_in_the_law() -> None:
    rooms = {room(file) for file in FILES} - {"__init__"}
    assert rooms == set(MAY)


@pytest.mark.parametrize("name", sorted(MAY))
def test_room_imports_only_what_the_law_allows(name: str) -> None:
    assert [line for file in FILES if room(file) == name for line in broken(file)] == []


def test_law_sees_an_import_upstairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    file = tmp_path / "runs" / "bad.py"
    file.parent.mkdir()
    file.write_text("def f():\n    from melete.llm import model\n")
    assert broken(file) == ["runs/bad.py:2: runs may not import melete.llm.model"]


def test_command_line_and_process_files_import_nothing_heavy_at_the_top() -> None:
    quick = [file for file in FILES if room(file) == "cli" or file.parent.name == "processes"]
    heavy = [
        f"{file.relative_to(SOURCE)}:{line}: {name}"
        for file in quick
        for name, inside, line in imports(file)
        if not inside and name.split(".")[0] in QUICK
    ]
    assert heavy == []


def test_every_file_starts_with_a_sentence() -> None:
    without = []
    for file in FILES:
        doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        if (doc or file.stat().st_size) and not (doc or "").split("\n")[0].endswith((".", ":", "?")):
            without.append(str(file.relative_to(SOURCE)))
    assert without == []
