"""What a branch changed: an older version of a program without its defect, and the difference in lines.

The older version has a few harmless differences (a docstring, the name of a local variable), so that not every changed
line is a defect.
"""

from __future__ import annotations

import ast
import difflib
from functools import lru_cache

from melete.agents.scenarios._programs.defects import Edit, Parsed, apply


@lru_cache(maxsize=256)
def decoys(source: str) -> tuple[tuple[Edit, ...], ...]:
    """Harmless changes that lead back to an older version: one of each kind a function."""
    parsed = Parsed(source)
    found: list[tuple[Edit, ...]] = []
    for function in parsed.functions:
        docstring = function.body[0]
        assert isinstance(docstring, ast.Expr)
        found.append((parsed.replaced(docstring.value, '"""To be written."""'),))
        inside = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
        quoted = {
            node.id
            for text in ast.walk(function)
            if isinstance(text, ast.JoinedStr)
            for node in ast.walk(text)
            if isinstance(node, ast.Name)
        }
        own = {node.id for node in inside if isinstance(node.ctx, ast.Store)}
        for name in sorted(own - quoted - {one.arg for one in function.args.args})[:1]:
            found.append(tuple(parsed.replaced(node, f"{name}_") for node in inside if node.id == name))
    return tuple(found)


@lru_cache(maxsize=4096)
def older(source: str, chosen: tuple[int, ...]) -> str:
    """The program before some of its decoys were changed."""
    return apply(source, tuple(edit for number in chosen for edit in decoys(source)[number]))


@lru_cache(maxsize=4096)
def difference(old: str, new: str) -> str:
    """Changed lines: those that went with `-`, and those that came with `+` and their number in the new version."""
    before, after = old.splitlines(), new.splitlines()
    lines: list[str] = []
    for tag, i, i_end, j, j_end in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            lines += [f"- {line}" for line in before[i:i_end]]
            lines += [f"+{number} {line}" for number, line in enumerate(after[j:j_end], start=j + 1)]
    return "\n".join(lines)
