"""Seeds one defect into a program: where each kind fits, found in the syntax tree and changed in the text.

A kind is a function from a parsed program to edits; the layout of the program stays as it was. Two kinds never fit the
same edit: a number changed by one is `off_by_one`, changed otherwise `wrong_constant`; `<` to `<=` is
`wrong_boundary`, a condition negated is `inverted_condition`. Which edits are real defects (a test fails, or the
linter speaks) is not decided here but by the tools, in `catalogue.py`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

LINT_CODES = {
    "unused_import": "F401", "unused_variable": "F841", "mutable_default": "B006", "shadowed_builtin": "A001",
    "bare_except": "E722", "none_comparison": "E711", "empty_f_string": "F541", "unclosed_file": "SIM115",
    "debug_print": "T201",
}  # fmt: skip
"""Kinds that the linter finds, and the code that it gives."""
BEHAVIOUR = (
    "off_by_one", "wrong_boundary", "wrong_operator", "wrong_constant", "wrong_name", "swapped_arguments",
    "inverted_condition", "missing_return", "dropped_step",
)  # fmt: skip
"""Kinds that a test finds."""
KINDS = (*LINT_CODES, *BEHAVIOUR)


@dataclass(frozen=True)
class Edit:
    """`text` in place of the characters from `start` to `end` of a source."""

    start: int
    end: int
    text: str


class Parsed:
    """A source with its tree and the places of its nodes."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tree = ast.parse(source)
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.functions = [node for node in self.tree.body if isinstance(node, ast.FunctionDef)]

    def span(self, node: ast.expr | ast.stmt | ast.excepthandler | ast.arg) -> tuple[int, int]:
        """First and last character of a node, the last not included."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self.starts[node.lineno - 1] + node.col_offset
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.expr | ast.stmt) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.source[start:end]

    def replaced(self, node: ast.expr | ast.stmt | ast.excepthandler, text: str) -> Edit:
        """A node's text exchanged."""
        return Edit(*self.span(node), text)

    def between(self, left: ast.expr, right: ast.expr, old: str, new: str) -> Edit:
        """The sign between two operands exchanged."""
        start, end = self.span(left)[1], self.span(right)[0]
        at = self.source.index(old, start, end)
        return Edit(at, at + len(old), new)

    def body(self) -> Iterator[ast.AST]:
        """All nodes of the functions' statements, docstrings and annotations left out, in order of the text."""
        found = [
            node
            for function in self.functions
            for statement in function.body[1:]
            for node in ast.walk(statement)
            if hasattr(node, "lineno")
        ]
        return iter(sorted(found, key=lambda node: (node.lineno, node.col_offset)))  # type: ignore[attr-defined]


def edits(source: str, kind: str) -> list[tuple[Edit, ...]]:
    """Every way in which a kind of defect fits a source."""
    return list(_FINDERS[kind](Parsed(source)))


def apply(source: str, changes: tuple[Edit, ...]) -> str:
    """The source after some edits, which must not overlap."""
    for edit in sorted(changes, key=lambda edit: edit.start, reverse=True):
        source = source[: edit.start] + edit.text + source[edit.end :]
    return source


def first_line(source: str, changes: tuple[Edit, ...]) -> int:
    """Line, from 1 on, of the first edit, in the new source."""
    start = min(edit.start for edit in changes)
    return source.count("\n", 0, start) + 1


def statement_lines(source: str, functions: Collection[str]) -> set[int]:
    """Lines on which a statement of some functions begins, docstrings left out."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {
        inner.lineno
        for node in nodes
        if node.name in functions
        for statement in node.body[1:]
        for inner in ast.walk(statement)
        if isinstance(inner, ast.stmt)
    }


Finder = Callable[[Parsed], Iterator[tuple[Edit, ...]]]


def _unused_import(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    at = parsed.starts[parsed.tree.body[0].end_lineno or 1]
    for module in ("json", "os", "re", "math"):
        yield (Edit(at + 1, at + 1, f"import {module}\n\n"),)


def _unused_variable(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for function, name in zip(parsed.functions, ("before", "copy", "old"), strict=False):
        start = parsed.starts[function.body[1].lineno - 1]
        yield (Edit(start, start, f"    {name} = {function.args.args[0].arg}\n"),)


def _debug_print(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for function in parsed.functions:
        start = parsed.starts[function.body[1].lineno - 1]
        yield (Edit(start, start, f"    print({function.args.args[-1].arg})\n"),)


def _mutable_default(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for function, name in zip(parsed.functions, ("seen", "notes", "extra"), strict=False):
        end = parsed.span(function.args.args[-1])[1]
        if function.args.defaults:
            end = parsed.span(function.args.defaults[-1])[1]
        yield (Edit(end, end, f", {name}: list[str] = []"),)


def _shadowed_builtin(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    builtins = ("list", "sum", "max", "filter", "id", "input", "map", "next")
    free = [name for name in builtins if not re.search(rf"\b{name}\b", parsed.source)]
    for function in parsed.functions:
        inside = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
        own = {node.id for node in inside if isinstance(node.ctx, ast.Store)}
        for name in sorted(own - {one.arg for one in function.args.args}):
            if free:
                yield tuple(parsed.replaced(node, free[0]) for node in inside if node.id == name)


def _bare_except(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for node in parsed.body():
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            start = parsed.span(node)[0]
            yield (Edit(start + len("except"), parsed.span(node.type)[1], ""),)


def _none_comparison(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for node in parsed.body():
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
            old, new = ("is", "==") if isinstance(node.ops[0], ast.Is) else ("is not", "!=")
            yield (parsed.between(node.left, node.comparators[0], old, new),)


def _empty_f_string(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for node in parsed.body():
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 1:
            start, end = parsed.span(node)
            if parsed.source[start:end].startswith('"') and "{" not in node.value:
                yield (Edit(start, start, "f"),)


def _unclosed_file(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for node in parsed.body():
        if isinstance(node, ast.With) and isinstance(node.items[0].optional_vars, ast.Name):
            opened = parsed.text(node.items[0].context_expr)
            head = f"{node.items[0].optional_vars.id} = {opened}"
            body = [parsed.text(statement) for statement in node.body]
            yield (parsed.replaced(node, f"\n{' ' * node.col_offset}".join([head, *body])),)


def _off_by_one(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for node in _counted(parsed):
        value = int(parsed.text(node))
        for near in (value + 1, value - 1):
            if near >= 0:
                yield (parsed.replaced(node, str(near)),)


def _counted(parsed: Parsed) -> Iterator[ast.Constant]:
    """Small whole numbers that count places: in an index, a slice, a range, a sum or a difference."""
    for node in parsed.body():
        near: list[ast.AST] = []
        if isinstance(node, ast.Subscript):
            near = [node.slice, *ast.iter_child_nodes(node.slice)]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            near = [node.left, node.right]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
            near = list(node.args)
        elif isinstance(node, ast.AugAssign):
            near = [node.value]
        for one in near:
            if isinstance(one, ast.Constant) and re.fullmatch(r"\d", parsed.text(one)):
                yield one


def _wrong_constant(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    constants = [
        node
        for node in ast.walk(parsed.tree)
        if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool)
    ]
    for node in sorted(constants, key=lambda node: (node.lineno, node.col_offset)):
        if isinstance(node.value, bool):
            yield (parsed.replaced(node, str(not node.value)),)
        else:
            assert isinstance(node.value, int | float)
            yield (parsed.replaced(node, str(node.value * 10 if node.value >= 2 else node.value + 5)),)


BOUNDARIES: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
}  # fmt: skip
NEGATIONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", ">="), ast.LtE: ("<=", ">"), ast.Gt: (">", "<="), ast.GtE: (">=", "<"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"), ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}  # fmt: skip
OPERATORS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "+"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "%"),
    ast.Mod: ("%", "//"),
}  # fmt: skip


def _wrong_boundary(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for node in parsed.body():
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for i, operator in enumerate(node.ops):
                if type(operator) in BOUNDARIES:
                    yield (parsed.between(operands[i], operands[i + 1], *BOUNDARIES[type(operator)]),)


def _wrong_operator(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for node in parsed.body():
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            yield (parsed.between(node.left, node.right, *OPERATORS[type(node.op)]),)
        elif isinstance(node, ast.BoolOp):
            signs = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            yield (parsed.between(node.values[0], node.values[1], *signs),)
        elif isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
            old, new = OPERATORS[type(node.op)]
            start = parsed.span(node.target)[1]
            at = parsed.source.index(f"{old}=", start)
            yield (Edit(at, at + len(old), new),)


def _inverted_condition(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for node in parsed.body():
        test = node.test if isinstance(node, ast.If | ast.IfExp) else None
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yield (parsed.replaced(test, parsed.text(test.operand)),)
        elif isinstance(test, ast.Name | ast.Call):
            start = parsed.span(test)[0]
            yield (Edit(start, start, "not "),)
        elif isinstance(test, ast.Compare) and len(test.ops) == 1 and type(test.ops[0]) in NEGATIONS:
            yield (parsed.between(test.left, test.comparators[0], *NEGATIONS[type(test.ops[0])]),)


def _missing_return(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for node in parsed.body():
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
            yield (parsed.replaced(node, parsed.text(node.value)),)


def _dropped_step(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for node in parsed.body():
        if not isinstance(node, ast.Call) or node.keywords:
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("strip", "lower", "upper"):
            yield (parsed.replaced(node, parsed.text(node.func.value)),)
        elif isinstance(node.func, ast.Name) and node.func.id in ("sorted", "abs", "int", "set"):
            (argument,) = node.args
            if not isinstance(argument, ast.GeneratorExp):
                yield (parsed.replaced(node, parsed.text(argument)),)


def _swapped_arguments(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for node in parsed.body():
        if isinstance(node, ast.Call) and len(node.args) >= 2:
            first, second = node.args[:2]
            texts = parsed.text(first), parsed.text(second)
            if texts[0] != texts[1] and not any("\n" in text for text in texts):
                yield parsed.replaced(first, texts[1]), parsed.replaced(second, texts[0])


def _wrong_name(parsed: Parsed) -> Iterator[tuple[Edit, ...]]:
    for function in parsed.functions:
        names = [argument.arg for argument in function.args.args]
        inside = [node for statement in function.body[1:] for node in ast.walk(statement)]
        for node in inside:
            if isinstance(node, ast.Name) and node.id in names and len(names) > 1:
                other = names[(names.index(node.id) + 1) % len(names)]
                yield (parsed.replaced(node, other),)


_FINDERS: dict[str, Finder] = {kind: globals()[f"_{kind}"] for kind in KINDS}
